"""Who uses devices without a lease, in rows for metrics: by device and user, so that a
process that comes and goes makes no series of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jupyter_aistack.core.model.stray import Stray

STRAY_LABELS = ("host", "device", "user")

StrayRows = list[tuple[tuple[str, ...], int]]


def stray_counts(host: str, strays: Sequence[Stray]) -> StrayRows:
    """How many processes each user has on each device."""
    counts = Counter(_labels(host, stray) for stray in strays)
    return list(counts.items())


def stray_memory(host: str, strays: Sequence[Stray]) -> StrayRows:
    """What they hold there; left out where that is not known of each of them."""
    held: Counter[tuple[str, ...]] = Counter()
    unknown = set()
    for stray in strays:
        labels = _labels(host, stray)
        if stray.memory_bytes is None:
            unknown.add(labels)
        else:
            held[labels] += stray.memory_bytes
    return [(labels, size) for labels, size in held.items() if labels not in unknown]


def _labels(host: str, stray: Stray) -> tuple[str, ...]:
    return (host, stray.device_id, stray.user)


STRAY_FIGURES = (
    ("processes", "Processes that use a device without a lease.", stray_counts),
    ("memory_bytes", "Memory that these hold.", stray_memory),
)
"""Names behind ``aistack_stray_``, what they tell, and how they are counted."""
