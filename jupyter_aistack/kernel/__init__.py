"""Kernels that start with a slice: the provisioner Jupyter launches them through, and
what it needs.

Importing this package imports nothing else.
"""
