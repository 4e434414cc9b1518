"""What the server does every few seconds: renew leases, record activity, act on memory
breaches.
"""
