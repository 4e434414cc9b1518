"""For JupyterHub: a page of a host's devices as a service of the hub, and a choice of
slices where servers are started.
"""
