"""The thresholds of idleness; :mod:`.idle` has the rule.

Constants alone: a notebook shows some of them, and loads no planner for it.
"""

from __future__ import annotations

RECORD_SECONDS = 60.0
"""Between two records of the same lease's use, so that the ledger is not written all
the time."""
GPU_WORKING = 0.01
CPU_WORKING = 0.05
"""Busy share from which a GPU slice, or a CPU slice, counts as working; a Python that
does nothing but keep a page's widgets up to date takes a hundredth or two of a core."""
SHOWN_SECONDS = 2 * RECORD_SECONDS
"""From when on its own holder is shown that a lease is idle: before that it may be in
use, and not recorded yet."""
NAMED_SECONDS = 600.0
"""From when on waiting users are shown that a lease in their way is idle."""
