"""The broker as those see it who start and watch kernels: in this process, or the
host's own.
"""
