"""The durable record of requests, leases and events."""
