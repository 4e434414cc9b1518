"""The sections of the suite that needs a GPU (``python -m
tests.benchmarks.gpu_suite``), one module each.
"""
