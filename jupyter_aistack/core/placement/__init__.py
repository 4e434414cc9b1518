"""Where a request fits."""
