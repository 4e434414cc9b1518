"""The values that are stored and sent."""
