"""Trying a policy on a trace before switching it on."""
