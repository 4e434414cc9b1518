"""The driver's checkpoint of a process's GPU state: one helper process that calls it,
and who speaks to the helper.
"""

from __future__ import annotations
