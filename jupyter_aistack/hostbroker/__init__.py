"""The broker of a host as a service of its own, for all of the host's users."""
