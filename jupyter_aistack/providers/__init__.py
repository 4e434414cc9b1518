"""Adapters to devices, one folder per vendor behind one port. Importing this package
opens nothing.
"""
