"""What holds a lease to its size, and whether it does."""
