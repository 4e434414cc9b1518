"""What happens between two cells: leases that arrive or end, cell timing, cells with a
slice of their own.
"""
