"""What the magics are made of: their arguments, what they show, and leases that arrive
between two cells.
"""
