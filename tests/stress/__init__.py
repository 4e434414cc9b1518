"""Many processes, one ledger, sudden deaths: is a device ever promised twice, does a
lease outlive its time or its holder, does a living holder ever lose a lease?

    python -m tests.stress --operations 10000 --processes 8 [--json]
"""
