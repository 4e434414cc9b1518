"""What is measured while sessions are replayed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

IMMEDIATE_SECONDS = 0.001
PERCENTILES = (50, 75, 90, 95, 99)


class Gauge:
    """A number that goes up and down: its most, and its integral over time in
    seconds.
    """

    def __init__(self) -> None:
        self.value = 0.0
        self.peak = 0.0
        self.total = 0.0
        self._at = 0.0
        self.times = array("d")
        self.values = array("d")

    def change(self, by: float, now: float) -> None:
        """It is `by` more from now on."""
        self.total += self.value * (now - self._at)
        self._at = now
        self.value += by
        self.peak = max(self.peak, self.value)
        self.times.append(now)
        self.values.append(self.value)


class Meter:
    """Everything a report is made from.

    Attributes:
        held: GPUs held by sessions; those that several sessions share count once for
            each.
        occupied: GPUs that at least one session holds memory on, or runs on.
        running: GPUs that run a task.
        parked: bytes parked in the memory of all hosts.
        delays: seconds each task waited, in the order in which they began.
        resumes: tasks that had to bring back, load or move the session's state first.
        host_parked: bytes parked now, by host.
        host_parked_peak: the most bytes parked on one host.
    """

    def __init__(self) -> None:
        self.held = Gauge()
        self.occupied = Gauge()
        self.running = Gauge()
        self.parked = Gauge()
        self.delays = array("d")
        self.resumes = 0
        self.host_parked: dict[str, int] = {}
        self.host_parked_peak = 0

    def hold(self, gpus: int, now: float) -> None:
        """So many more GPUs are held, not shared."""
        self.held.change(gpus, now)
        self.occupied.change(gpus, now)

    def add_parked(self, size: int, host: str, now: float) -> None:
        """So many more bytes are parked in the memory of `host`."""
        self.parked.change(size, now)
        on_host = self.host_parked.get(host, 0) + size
        self.host_parked[host] = on_host
        self.host_parked_peak = max(self.host_parked_peak, on_host)

    def share_within(self, seconds: float) -> float:
        """The share of tasks that waited no longer, in percent."""
        within = sum(delay <= seconds for delay in self.delays)
        return 100 * within / max(1, len(self.delays))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The usual percentiles by nearest rank: the smallest value that so many percent
    do not exceed. 0 for no values.
    """
    ranked = sorted(values)
    return {f"p{percent}": _percentile(ranked, percent) for percent in PERCENTILES}


def _percentile(ranked: Sequence[float], percent: int) -> float:
    if not ranked:
        return 0.0
    rank = -(-len(ranked) * percent // 100)  # rounded up
    return round(ranked[rank - 1], 3)
