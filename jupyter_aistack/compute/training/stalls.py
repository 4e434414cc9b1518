"""Which rank holds the others up: decided from their heartbeats, in the notebook.

A rank stalls when it neither goes on nor computes while the others wait for it: it was
stopped, or waits for a disk that does not answer. Ranks that are all silent together
are no stall: a suspended machine or a paused container takes them along when it goes
on. Ranks that all wait without computing wait for one another, and would do so for
ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .heartbeat import RankBeat

STEP_SECONDS = 1.0
"""The most that counts between two looks: whoever looks later than that was stopped
itself.
"""

BEATING_SECONDS = 3.0
"""A heart that has not beaten for so long is silent."""

START_SECONDS = 60.0
"""How long a rank may take to its first beat: importing torch from a slow disk takes
long.
"""

IDLE_SHARE = 0.05
"""Who has used less of a core than this has not computed; a heartbeat costs less than a
hundredth.
"""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What is known of a rank at one moment.

    Attributes:
        beat: its last; None before its first.
        cpu_seconds: what its process has demanded so far; None where that cannot be
            read.
    """

    beat: RankBeat | None
    cpu_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Stall:
    """Ranks that no longer go on.

    Attributes:
        rank: who holds the others up; None when all wait for one another.
        seconds: for how long.
        beats: where each rank was last seen.
        state: what the kernel says the rank's process does, as in ``/proc/PID/stat``;
            empty where it does not say.
    """

    rank: int | None
    seconds: float
    beats: Mapping[int, RankBeat | None]
    state: str = ""


class _QuietTime:
    """How long nothing has happened, and the CPU time when it began."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._cpu_before: float | None = None

    def restart(self, cpu_seconds: float | None) -> None:
        self.seconds = 0.0
        self._cpu_before = cpu_seconds

    def is_idle(self, cpu_seconds: float | None) -> bool:
        """Whether nothing was computed since; unknown is not idle."""
        if cpu_seconds is None or self._cpu_before is None:
            return False
        return cpu_seconds - self._cpu_before < IDLE_SHARE * self.seconds


class _Heart:
    """A rank's last beat, and how long ago that was."""

    def __init__(self) -> None:
        self.beat: RankBeat | None = None
        self._silent_seconds = 0.0

    def update(self, beat: RankBeat | None, elapsed: float) -> bool:
        """Take in the last beat; returns whether the loop has gone on since."""
        before = self.beat
        self.beat = beat
        if beat is None or before is None:
            return beat is not None
        self._silent_seconds += elapsed
        if beat.number != before.number:
            self._silent_seconds = 0.0
        return beat.progress != before.progress

    def is_beating(self, within_seconds: float) -> bool:
        return self.beat is not None and self._silent_seconds < within_seconds

    @property
    def is_at_wait(self) -> bool:
        """Whether it was waiting for the others at its last beat."""
        return self.beat is not None and self.beat.phase.is_waiting


class StallWatch:
    """Looks at all ranks again and again, and tells of a stall.

    A rank's quiet time begins anew when it goes on, waits itself, or is not waited for;
    while no other heart beats it neither grows nor ends.

    Args:
        ranks: how many there are.
        limit_seconds: how long the others may wait for a rank.
    """

    def __init__(self, ranks: int, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._beating = min(BEATING_SECONDS, limit_seconds / 2)
        self._hearts = {rank: _Heart() for rank in range(ranks)}
        self._quiet = {rank: _QuietTime() for rank in range(ranks)}
        self._all_quiet = _QuietTime()
        self._observed_at: float | None = None

    def observe(self, now: float, sightings: Mapping[int, Sighting]) -> Stall | None:
        """The stall there is, if any.

        Args:
            now: of a clock that never goes back.
            sightings: of the ranks that have not ended.
        """
        before = now if self._observed_at is None else self._observed_at
        self._observed_at = now
        elapsed = min(now - before, STEP_SECONDS)
        moved = {
            rank
            for rank, sighting in sightings.items()
            if self._hearts[rank].update(sighting.beat, elapsed)
        }
        beating = {
            rank for rank in sightings if self._hearts[rank].is_beating(self._beating)
        }
        waiting = {rank for rank in beating - moved if self._hearts[rank].is_at_wait}
        for rank, sighting in sightings.items():
            quiet = self._quiet[rank]
            others = beating - {rank}
            if rank in moved | waiting or not others <= waiting:
                quiet.restart(sighting.cpu_seconds)
            elif others:
                quiet.seconds += elapsed
        if not beating <= waiting:
            self._all_quiet.restart(_total(sightings))
        elif len(waiting) == len(sightings) > 1:
            self._all_quiet.seconds += elapsed
        return self._stall(sightings)

    def _stall(self, sightings: Mapping[int, Sighting]) -> Stall | None:
        for rank, sighting in sightings.items():
            quiet = self._quiet[rank]
            if sighting.beat is None:
                has_stalled = quiet.seconds >= max(self._limit, START_SECONDS)
            else:
                has_stalled = self._is_over(quiet, sighting.cpu_seconds)
            if has_stalled:
                return self._stall_of(rank, quiet)
        if self._is_over(self._all_quiet, _total(sightings)):
            return self._stall_of(None, self._all_quiet)
        return None

    def _is_over(self, quiet: _QuietTime, cpu_seconds: float | None) -> bool:
        if quiet.seconds < self._limit:
            return False
        if quiet.is_idle(cpu_seconds):
            return True
        quiet.restart(cpu_seconds)
        return False

    def _stall_of(self, rank: int | None, quiet: _QuietTime) -> Stall:
        beats = {each: heart.beat for each, heart in self._hearts.items()}
        return Stall(rank=rank, seconds=quiet.seconds, beats=beats)


def _total(sightings: Mapping[int, Sighting]) -> float | None:
    """CPU time of all ranks; None where it is not known of each."""
    seconds = [sighting.cpu_seconds for sighting in sightings.values()]
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None
