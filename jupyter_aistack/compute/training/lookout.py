"""Looks after the ranks of an attempt, from the notebook: their heartbeats, and what
their processes use.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from jupyter_aistack.system.processes import cpu_seconds, state_of

from .heartbeat import read_beat
from .job import TrainingJob
from .stalls import Sighting, Stall, StallWatch

LOOK_SECONDS = 0.25


class Lookout:
    """Looks at the ranks four times a second.

    Args:
        jobs: of all ranks.
        limit_seconds: how long the others may wait for a rank; None for ever.
    """

    def __init__(
        self, jobs: Sequence[TrainingJob], limit_seconds: float | None
    ) -> None:
        self._watch: StallWatch | None = None
        if limit_seconds is not None:
            self._watch = StallWatch(len(jobs), limit_seconds)
        self._looked_at = time.monotonic()

    def look(self, running: Sequence[TrainingJob]) -> Stall | None:
        """The stall there is, if any, among the ranks that have not ended."""
        now = time.monotonic()
        if self._watch is None or now - self._looked_at < LOOK_SECONDS:
            return None
        self._looked_at = now
        stall = self._watch.observe(now, {job.rank: _sighting(job) for job in running})
        return None if stall is None else _with_state(stall)


def _sighting(job: TrainingJob) -> Sighting:
    beat = read_beat(job.beat_file)
    used = None if beat is None else cpu_seconds(beat.pid)
    return Sighting(beat=beat, cpu_seconds=used)


def _with_state(stall: Stall) -> Stall:
    beat = None if stall.rank is None else stall.beats[stall.rank]
    if beat is None:
        return stall
    return replace(stall, state=state_of(beat.pid))
