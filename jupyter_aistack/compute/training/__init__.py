"""Training on leased slices: one torch rank per Dask worker, each in a process of its
own.
"""
