"""Dask clusters on leased slices: one lease per worker, released with it."""
