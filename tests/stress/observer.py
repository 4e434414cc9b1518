"""The outside observer: it knows from the system who truly lives, reads what the ledger
decides, and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.request import Holder
from jupyter_aistack.ledger.sql.ledger import SQLLedger

from .actor import FORGOTTEN_SECONDS, MOST_OFFSET, TTL_SECONDS
from .journal import HANDED, LOST, PROBLEM, lives, notes
from .replay import ENDINGS, EVERYTHING

AT_NO_TIME = 0.0
"""A reader at this time ends nothing that is over."""
UNSEEN_SECONDS = TTL_SECONDS * 4 / 3 + 2 * MOST_OFFSET
"""So long may the lease of a dead holder live where no process that runs can know of its
death, or that it is not being given back any more: until a clock that is behind says that
it is not renewed."""
WHOLE_TURNS = 2
"""After so many turns have ended, one of them has begun since."""


@dataclass
class Death:
    """A dead holder's lease.

    Attributes:
        seen_at: when its holder was first seen dead, by a clock that nobody sets.
        turns: the turns, or the stretches, of each process that keeps leases, when the
            lease's time was over; None before.
    """

    seen_at: float
    turns: list[int] | None = None


@dataclass
class Observations:
    """What was seen against the rules.

    Attributes:
        lost: leases that ended though their holder lived, with how.
        lingering: leases that lived on though their holder was dead, with whose.
    """

    lost: dict[str, str] = field(default_factory=dict)
    lingering: dict[str, str] = field(default_factory=dict)


class Observer:
    """Looks at the ledger and the holders.

    Args:
        ledger: an opening of its own.
        folder: of the journals.
        turns: how many turns each process has run that sees all others.
        stretches: how many stretches of turns.
        is_seen: whether a holder's death can be seen at once.
        is_living: whether a holder lives.
    """

    def __init__(
        self,
        ledger: SQLLedger,
        folder: Path,
        turns: Callable[[], Sequence[int]],
        stretches: Callable[[], Sequence[int]],
        is_seen: Callable[[str], bool],
        is_living: Callable[[Path, str], bool] = lives,
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._turns = turns
        self._stretches = stretches
        self._is_seen = is_seen
        self._is_living = is_living
        self._sequence = 0
        self._deaths: dict[str, Death] = {}
        self.live: dict[str, Lease] = {}
        self.observations = Observations()

    def look(self) -> None:
        """See what has happened since the last look."""
        # Read first: what is live below has outlived these turns.
        turns = list(self._turns())
        stretches = list(self._stretches())
        for event in self._ledger.events(self._sequence, EVERYTHING):
            self._sequence = event.sequence
            if event.kind is EventKind.LEASE_GRANTED:
                lease = self._ledger.lease(event.lease_id, AT_NO_TIME)
                self.live[lease.id] = lease
            elif event.kind in ENDINGS:
                self._see_end(event)
        living: dict[str, bool] = {}
        for lease in self.live.values():
            holder = name_of(lease.holder)
            if holder not in living:
                living[holder] = self._is_living(self._folder, holder)
            if not living[holder]:
                run = turns if self._is_seen(holder) else stretches
                self._see_dead_holder(lease, run)

    def _see_end(self, event: Event) -> None:
        lease = self.live.pop(event.lease_id)
        if event.kind is EventKind.LEASE_RELEASED or _ends_as_asked(lease, event):
            return
        holder = name_of(lease.holder)
        if not self._is_living(self._folder, holder):
            return
        # A request that could not be answered is taken back: nobody was handed it.
        is_failed = event.kind is EventKind.LEASE_FAILED
        if is_failed and (HANDED, lease.id) not in notes(self._folder, holder):
            return
        self.observations.lost[lease.id] = f"{event.kind.value} while {holder} lived"

    def _see_dead_holder(self, lease: Lease, run: list[int]) -> None:
        holder = name_of(lease.holder)
        death = self._deaths.setdefault(lease.id, Death(time.monotonic()))
        if death.turns is None:
            is_over = time.monotonic() - death.seen_at > self._allowed_seconds(lease)
            death.turns = run if is_over else None
        if death.turns is None:
            return
        since = [now - then for now, then in zip(run, death.turns, strict=True)]
        if max(since) >= WHOLE_TURNS:
            self.observations.lingering[lease.id] = f"{holder} is dead"

    def _allowed_seconds(self, lease: Lease) -> float:
        """How long a lease may outlive its holder. Who gives it back may be another."""
        now = self._ledger.lease(lease.id, AT_NO_TIME)
        is_known = self._is_seen(name_of(lease.holder))
        is_ended_at_once = is_known and now.state is not LeaseState.RELEASING
        return TTL_SECONDS if is_ended_at_once else UNSEEN_SECONDS

    def read_journals(self) -> list[str]:
        """Take over what holders have lost by their own account; what else was wrong
        with them.
        """
        problems = []
        for path in sorted(self._folder.iterdir()):
            for word, text in notes(self._folder, path.name):
                if word == LOST:
                    lease_id, _, how = text.partition(" ")
                    self.observations.lost[lease_id] = f"{path.name}: {how}"
                elif word == PROBLEM:
                    problems.append(f"{path.name}: {text}")
        return problems


def name_of(holder: Holder) -> str:
    """Which journal is a holder's: the client's ids are pids, so it gives its name as a
    label.
    """
    return holder.label or holder.id


def _ends_as_asked(lease: Lease, event: Event) -> bool:
    """Whether a lease ended because its living holder asked for a short one."""
    if event.kind is not EventKind.LEASE_EXPIRED or lease.ends_at is None:
        return False
    return lease.ends_at - lease.granted_at <= FORGOTTEN_SECONDS + 1e-3
