"""Who holds the others up, told from what is seen of each rank at each moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from jupyter_aistack.compute.training.heartbeat import Phase, RankBeat
from jupyter_aistack.compute.training.stalls import Sighting, Stall, StallWatch

LIMIT = 10.0
STEP = 0.25


@dataclass
class Rank:
    """A rank as it behaves: each switch for what a moment brings."""

    phase: Phase = Phase.COMPUTING
    is_stopped: bool = False
    is_computing: bool = True
    goes_on: bool = True
    has_begun: bool = True
    _number: int = 0
    _progress: int = 0
    _cpu: float = 0.0

    def pass_time(self, seconds: float) -> Sighting:
        if not self.has_begun:
            return Sighting(beat=None, cpu_seconds=None)
        if not self.is_stopped:
            self._number += 1
            self._progress += self.goes_on
            self._cpu += seconds * (0.9 if self.is_computing else 0.002)
        beat = RankBeat(
            number=self._number,
            host="h",
            pid=1,
            phase=self.phase,
            progress=self._progress,
            epoch=0,
            batch=0,
            place="",
        )
        return Sighting(beat=beat, cpu_seconds=self._cpu)


@dataclass
class Ranks:
    """Two ranks under watch; `now` is moved by hand."""

    ranks: Mapping[int, Rank] = field(default_factory=lambda: {0: Rank(), 1: Rank()})
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.watch = StallWatch(len(self.ranks), LIMIT)

    def stall_within(self, seconds: float, step: float = STEP) -> Stall | None:
        for _ in range(round(seconds / step)):
            self.now += step
            sightings = {n: rank.pass_time(step) for n, rank in self.ranks.items()}
            stall = self.watch.observe(self.now, sightings)
            if stall is not None:
                return stall
        return None

    def hold_up(self) -> Rank:
        """Let rank 0 wait for rank 1, which is returned."""
        waiting = self.ranks[0]
        waiting.phase = Phase.WAITING
        waiting.goes_on = False
        waiting.is_computing = False
        return self.ranks[1]


@pytest.fixture
def both() -> Ranks:
    """Two ranks at work."""
    ranks = Ranks()
    assert ranks.stall_within(5) is None
    return ranks


def test_ranks_at_work_do_not_stall(both: Ranks) -> None:
    assert both.stall_within(100) is None


def test_a_stopped_rank_that_another_waits_for_has_stalled(both: Ranks) -> None:
    both.hold_up().is_stopped = True
    stall = both.stall_within(30)
    assert stall is not None
    assert (stall.rank, stall.seconds) == (1, LIMIT)
    assert stall.beats[1] is not None


def test_a_rank_stopped_inside_a_collective_has_stalled_as_well(both: Ranks) -> None:
    stopped = both.hold_up()
    stopped.phase = Phase.WAITING
    stopped.is_stopped = True
    stall = both.stall_within(30)
    assert stall is not None
    assert stall.rank == 1


def test_a_rank_on_a_hung_mount_has_stalled_though_its_heart_beats(both: Ranks) -> None:
    hung = both.hold_up()
    hung.goes_on = False
    hung.is_computing = False
    stall = both.stall_within(30)
    assert stall is not None
    assert stall.rank == 1


def test_a_rank_that_computes_has_not_stalled(both: Ranks) -> None:
    both.hold_up().goes_on = False
    assert both.stall_within(100) is None


def test_a_rank_that_nobody_waits_for_has_not_stalled(both: Ranks) -> None:
    idle = both.ranks[1]
    idle.goes_on = False
    idle.is_computing = False
    both.ranks[0].goes_on = False
    assert both.stall_within(100) is None


def test_ranks_stopped_together_have_not_stalled_however_long(both: Ranks) -> None:
    both.hold_up()
    for rank in both.ranks.values():
        rank.is_stopped = True
    assert both.stall_within(3600) is None
    for rank in both.ranks.values():
        rank.is_stopped = False
    assert both.stall_within(100) is None


def test_time_in_which_the_watcher_was_stopped_does_not_count(both: Ranks) -> None:
    both.hold_up().is_stopped = True
    assert both.stall_within(LIMIT / 2) is None
    both.now += 3600
    assert both.stall_within(2) is None
    assert both.stall_within(LIMIT) is not None


def test_a_rank_that_goes_on_in_time_is_forgiven(both: Ranks) -> None:
    stopped = both.hold_up()
    for _ in range(5):
        stopped.is_stopped = True
        assert both.stall_within(LIMIT * 0.9) is None
        stopped.is_stopped = False
        assert both.stall_within(1) is None


def test_ranks_that_wait_for_one_another_are_told_without_a_culprit(
    both: Ranks,
) -> None:
    other = both.hold_up()
    other.phase = Phase.FINISHED
    other.goes_on = False
    other.is_computing = False
    stall = both.stall_within(30)
    assert stall is not None
    assert stall.rank is None
    assert stall.seconds == pytest.approx(LIMIT, abs=1)


def test_a_long_exchange_between_ranks_is_no_deadlock(both: Ranks) -> None:
    both.hold_up()
    for rank in both.ranks.values():
        rank.phase = Phase.WAITING
        rank.goes_on = False
        rank.is_computing = True
    assert both.stall_within(100) is None


def test_a_rank_that_never_begins_is_given_a_minute() -> None:
    ranks = Ranks()
    ranks.hold_up().has_begun = False
    assert ranks.stall_within(59) is None
    stall = ranks.stall_within(10)
    assert stall is not None
    assert (stall.rank, stall.beats[1]) == (1, None)


def test_a_lone_rank_never_stalls() -> None:
    ranks = Ranks({0: Rank(is_stopped=True)})
    assert ranks.stall_within(1000) is None
