"""How kernels call the server: the Unix socket, and commands to the agents in
notebooks.
"""
