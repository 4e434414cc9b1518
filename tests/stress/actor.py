"""A process that asks for, keeps, extends, gives back and forgets leases by chance, and
knows at any time what it must still have: through a broker of its own, by a clock that
jumps. Another way is :mod:`.client_actor`.
"""

from __future__ import annotations

import os
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Lease, Outcome
from jupyter_aistack.core.model.request import Holder, HolderKind, RequestState
from jupyter_aistack.exceptions import AIStackError, LeaseError, LedgerError
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.system.users import current_user

from .devices import SPECS, FixedDevices
from .journal import GIVEN_BACK, HANDED, LOST, Journal
from .keeper import Keeper

TTL_SECONDS = 1.5
MOST_OFFSET = 3.0
"""A clock is set by so many seconds at most, either way."""
LONG_SECONDS = 3600.0
FORGOTTEN_SECONDS = 2.0
"""A lease that its living holder forgets ends after so long, as it asked to."""
MOST_HELD = 3
KEEP_SECONDS = TTL_SECONDS / 6
EXTENSION_SECONDS = 10.0


class JumpingClock:
    """The time of a machine whose clock is set again and again."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._offset = 0.0

    def jump(self) -> None:
        """Set the clock, forward or back."""
        self._offset = self._chance.uniform(-MOST_OFFSET, MOST_OFFSET)

    def __call__(self) -> float:
        return time.time() + self._offset


class Actor(ABC):
    """One holder, which is one process.

    Args:
        folder: of the journals.
        name: of the holder, used by no other.
        seed: what chance starts from.
    """

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.name = name
        self.journal = Journal(folder, name)

    def act(self) -> None:
        """Do one of the things that an actor does."""
        actions = self.actions()
        action = self.chance.choices(list(actions), list(actions.values()))[0]
        with suppress(AIStackError):
            action()
        self.poll()

    @abstractmethod
    def actions(self) -> dict[Callable[[], None], int]:
        """What it may do, and how often it does each."""

    @abstractmethod
    def poll(self) -> None:
        """Take what has been granted meanwhile."""

    @abstractmethod
    def check(self) -> None:
        """Report what is lost of all that it must have."""

    @abstractmethod
    def keep(self, keeper: Callable[[Broker], Keeper]) -> None:
        """What a thread of it does all the time."""

    @abstractmethod
    def forked(self, name: str, seed: int) -> Actor:
        """In a process that was just forked: what acts there, in its own name."""

    @abstractmethod
    def release_all(self) -> None:
        """Give everything back."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the ledger."""

    def report_loss(self, lease_id: str, how: str) -> None:
        self.journal.note(LOST, f"{lease_id} {how}")


class BrokerActor(Actor):
    """Acts through a broker of its own.

    Args:
        ledger: where it asks.
    """

    def __init__(self, ledger: SQLLedger, folder: Path, name: str, seed: int) -> None:
        super().__init__(folder, name, seed)
        self._ledger = ledger
        self.clock = JumpingClock(self.chance)
        self.broker = Broker(
            ledger, [FixedDevices()], clock=self.clock, ttl_seconds=TTL_SECONDS
        )
        self.held: list[Lease] = []
        self.waiting: list[str] = []
        self.holder = Holder(
            kind=HolderKind.PROCESS,
            id=name,
            user=current_user(),
            host=self.broker.host,
            pid=os.getpid(),
        )

    def actions(self) -> dict[Callable[[], None], int]:
        return {
            self.request: 5,
            self.renew: 4,
            self.extend: 2,
            self.release: 5,
            self.forget: 1,
            self.clock.jump: 1,
            self.request_in_threads: 1,
        }

    def keep(self, keeper: Callable[[Broker], Keeper]) -> None:
        kept = keeper(self.broker)
        while True:
            kept.turn()
            time.sleep(KEEP_SECONDS)

    def forked(self, name: str, seed: int) -> Actor:
        # On the ledger that its parent has opened.
        return BrokerActor(self._ledger, self.folder, name, seed)

    def close(self) -> None:
        self.broker.close()

    # -- what it does ------------------------------------------------------------------

    def request(self) -> None:
        if len(self.held) + len(self.waiting) < MOST_HELD:
            self._submit(self.chance.choice([None, LONG_SECONDS]))

    def request_in_threads(self) -> None:
        """Ask three times at once, in one name."""
        if self.held or self.waiting:
            return
        threads = [threading.Thread(target=self._submit_or_not) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _submit_or_not(self) -> None:
        with suppress(AIStackError):
            self._submit(None)

    def _submit(self, lease_seconds: float | None) -> None:
        request = self.broker.submit(
            self.chance.choice(SPECS),
            self.holder,
            lease_seconds=lease_seconds,
            patience_seconds=self.chance.choice([0.0, 0.0, 0.3, None]),
        )
        # What became of it is read as often as it takes.
        self.waiting.append(request.id)
        if request.state is RequestState.QUEUED and self.chance.random() < 0.8:
            self.broker.cancel(request.id)

    def forget(self) -> None:
        """Neither renew nor release: the end that was asked for must come."""
        request = self.broker.submit(
            self.chance.choice(SPECS),
            self.holder,
            lease_seconds=FORGOTTEN_SECONDS,
            patience_seconds=0.0,
        )
        assert request.state is not RequestState.QUEUED

    def renew(self) -> None:
        self._use_any(lambda lease: self.broker.renew(lease.id, lease.token))

    def extend(self) -> None:
        self._use_any(
            lambda lease: self.broker.extend(lease.id, lease.token, EXTENSION_SECONDS)
        )

    def release(self) -> None:
        for lease in self._any_held():
            self.held.remove(lease)
            self.journal.note(GIVEN_BACK, lease.id)
            try:
                ended = self.broker.release(lease.id, lease.token)
            except LedgerError:
                self.held.append(lease)
                raise
            if ended.outcome is not Outcome.RELEASED:
                self.report_loss(lease.id, f"{ended.outcome} before its release")

    def release_all(self) -> None:
        for _ in list(self.held):
            with suppress(AIStackError):
                self.release()

    def _any_held(self) -> list[Lease]:
        return [self.chance.choice(self.held)] if self.held else []

    def _use_any(self, verb: Callable[[Lease], object]) -> None:
        for lease in self._any_held():
            try:
                verb(lease)
            except LeaseError as error:
                self.held.remove(lease)
                self.report_loss(lease.id, error.message)

    # -- what it has -------------------------------------------------------------------

    def poll(self) -> None:
        for request_id in list(self.waiting):
            with suppress(LedgerError):
                request = self.broker.request(request_id)
                if request.state is RequestState.GRANTED:
                    self._take(request.lease_id)
                if request.state is not RequestState.QUEUED:
                    self.waiting.remove(request_id)

    def _take(self, lease_id: str) -> None:
        lease = self.broker.lease(lease_id)
        self.journal.note(HANDED, lease_id)
        if lease.is_live:
            self.held.append(lease)
        else:
            self.report_loss(lease.id, f"{lease.outcome} when it was taken")

    def check(self) -> None:
        for lease in list(self.held):
            with suppress(LedgerError):
                now = self.broker.lease(lease.id)
                if not now.is_live:
                    self.held.remove(lease)
                    self.report_loss(lease.id, f"{now.outcome} when it was looked at")
