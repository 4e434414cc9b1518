"""Facts of this operating system: processes, control groups, memory, peers, files."""
