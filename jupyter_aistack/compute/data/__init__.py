"""From tables and arrays to the batches of a rank."""
