"""A short-lived child that reports what a process with this environment really sees."""
