"""Doing it: the device state of this server's kernels moves out when the plan says so,
and back before it is used.
"""

from __future__ import annotations
