"""Experiments: what was tried, on which slice and data, how it went and what it
cost.
"""
