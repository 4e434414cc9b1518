"""What a process holds in its hand: a connection, its lease, and what the lease sets in
the process.
"""
