"""Work on slices: Dask clusters, training, and the data that feeds it."""
