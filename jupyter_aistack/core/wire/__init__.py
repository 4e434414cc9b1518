"""Values to and from JSON, and who may see what."""
