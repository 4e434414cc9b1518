"""What a lease sets in a running process: environment, CPU affinity, memory caps of
frameworks.
"""
