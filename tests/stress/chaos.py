"""Chaos: workers in and out of containers, whose clocks jump both ways, that fork and
ask in several threads at once, are stopped for longer than a lease lives without
renewal, and killed. Afterwards the history is replayed, and an outside observer has
watched who truly lived.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from tests.fakes.namespaces import why_no_namespaces

from .actor import TTL_SECONDS
from .chaos_worker import Counters, Post, work
from .confinement import Confinement
from .devices import FixedDevices
from .journal import lives
from .keeper import Keeper
from .observer import Observer
from .replay import EVERYTHING, incoherent, replay
from .sabotage import SABOTAGES

ACCIDENT_SECONDS = (3.0, 12.0)
"""Between two accidents of one worker, about."""
STOP_SECONDS = (1.2 * TTL_SECONDS, 2.5 * TTL_SECONDS)
LOOK_SECONDS = 0.1
ORPHAN_SECONDS = 60.0
ROSTER = (
    (Confinement.NONE, False),
    (Confinement.CONTAINER, False),
    (Confinement.NONE, True),
    (Confinement.BLIND, True),
    (Confinement.NONE, False),
    (Confinement.CONTAINER, True),
    (Confinement.NONE, True),
    (Confinement.BLIND, False),
)
"""Where the workers run, in turn, and whether they ask as users do."""
Report = Callable[[str], None]


class ChaosCrew:
    """The workers, and the accidents that befall them.

    Args:
        url: of the ledger.
        folder: of the journals.
        operations: how much all do together.
        processes: how many workers there are at a time.
        seed: what chance starts from.
        sabotage: how the workers' brokers break the rules; empty for not at all.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        operations: int,
        processes: int,
        seed: int,
        sabotage: str = "",
    ) -> None:
        # Each worker is forked from a server that has imported everything but never
        # opened a ledger.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.stress.chaos_worker", "psutil"])
        self._url = url
        self._sabotage = sabotage
        self._folder = folder
        self._chance = random.Random(seed)
        self._shares = [
            operations // processes + (n < operations % processes)
            for n in range(processes)
        ]
        self.why_unconfined = why_no_namespaces()
        roster = [ROSTER[n % len(ROSTER)] for n in range(processes)]
        self.places = [
            Confinement.NONE if self.why_unconfined else place for place, _ in roster
        ]
        self._are_clients = [is_client for _, is_client in roster]
        # Without locks: a process that is killed while it holds one would keep it for
        # ever.
        names = ("done", "turns", "stretches", "pids", "children")
        self.counters = Counters(
            **{name: self._context.RawArray("q", processes) for name in names}
        )
        self.kills = 0
        self.stops = 0
        self.failures: list[str] = []
        self._incarnations = [0] * processes
        self._stopped: dict[int, float] = {}
        self._running: dict[int, BaseProcess] = {}
        for number in range(processes):
            self._start(number)

    def _start(self, number: int) -> None:
        self._incarnations[number] += 1
        self.counters.pids[number] = 0
        post = Post(
            number=number,
            name=f"worker-{number}-{self._incarnations[number]}",
            share=self._shares[number],
            url=self._url,
            folder=self._folder,
            seed=self._chance.getrandbits(32),
            confinement=self.places[number],
            is_client=self._are_clients[number],
            sabotage=self._sabotage,
        )
        process = self._context.Process(target=work, args=(post, self.counters))
        process.start()
        self._running[number] = process

    # -- who sees whom -----------------------------------------------------------------

    def of_seeing(self, counts: Iterable[int]) -> list[int]:
        """The counts of the workers that see all processes."""
        return [count for number, count in enumerate(counts) if self._sees_all(number)]

    def is_confined(self, holder_id: str) -> bool:
        """Whether a worker, or a child of it, runs in a container."""
        number = int(holder_id.split("-")[1])
        return self.places[number] is not Confinement.NONE

    # -- accidents ---------------------------------------------------------------------

    def tend(self) -> bool:
        """Wake those that have been stopped for long enough, replace those that were
        killed. Whether anyone still works.
        """
        for number, wake_at in list(self._stopped.items()):
            if time.monotonic() >= wake_at:
                self._signal(number, signal.SIGCONT)
                del self._stopped[number]
        for number, process in list(self._running.items()):
            if process.exitcode is not None:
                self._replace(number, process.exitcode)
        return bool(self._running)

    def have_accident(self, look: Callable[[], None]) -> None:
        """Stop or kill a worker that runs, or kill a stopped worker.

        Args:
            look: called before a stopped worker is killed: what has ended until then
                has ended while it lived.
        """
        known = [number for number in self._running if self.counters.pids[number]]
        if not known:
            return
        number = self._chance.choice(known)
        if number not in self._stopped and self._may_stop(number):
            self._stop(number)
        if number in self._stopped and self._chance.random() < 0.5:
            look()
            self._signal(number, signal.SIGKILL)
            del self._stopped[number]
            self.kills += 1

    def _may_stop(self, number: int) -> bool:
        """Whether somebody who sees all processes, and whose turns are counted, still
        runs then.
        """
        awake = [
            each
            for each in self._running
            if each not in self._stopped and self._sees_all(each)
        ]
        return awake not in ([], [number])

    def _sees_all(self, number: int) -> bool:
        return self.places[number] is Confinement.NONE and not self._are_clients[number]

    def _stop(self, number: int) -> None:
        self._signal(number, signal.SIGSTOP)
        wake_at = time.monotonic() + self._chance.uniform(*STOP_SECONDS)
        self._stopped[number] = wake_at
        self.stops += 1

    def _signal(self, number: int, which: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.counters.pids[number], which)

    def _replace(self, number: int, exit_code: int) -> None:
        del self._running[number]
        self._stopped.pop(number, None)
        is_killed = exit_code == -signal.SIGKILL
        if exit_code and not is_killed:
            self.failures.append(f"worker {number} ended with status {exit_code}")
        if is_killed and self.counters.done[number] < self._shares[number]:
            self._start(number)

    def end(self) -> None:
        """Kill all that are left; a container's processes end with its first."""
        for number, process in self._running.items():
            if self.counters.pids[number]:
                self._signal(number, signal.SIGKILL)
            process.kill()
            process.join()


def chaos(
    url: str,
    folder: Path,
    operations: int,
    processes: int,
    seed: int,
    report: Report,
    sabotage: str = "",
) -> dict[str, Any]:
    """Run it all on a new ledger; the figures, findings included.

    Args:
        folder: an empty folder for journals.
        report: is told how far it is.
        sabotage: how the brokers break the rules, in this process too; empty for not at
            all.
    """
    started = time.monotonic()
    ledger = SQLLedger(url)
    ledger.events(limit=1)  # made here, so that no worker is killed while it makes it
    crew = ChaosCrew(url, folder, operations, processes, seed, sabotage)
    extra_turns = [0]
    extra_stretches = [0]
    observer = Observer(
        ledger,
        folder,
        lambda: [*crew.of_seeing(crew.counters.turns), *extra_turns],
        lambda: [*crew.of_seeing(crew.counters.stretches), *extra_stretches],
        lambda holder_id: not crew.is_confined(holder_id),
    )
    try:
        _supervise(crew, observer, operations, report)
    finally:
        crew.end()
    _wait_for_orphans(folder)
    if sabotage:
        SABOTAGES[sabotage]()
    _drain(url, observer, extra_turns, extra_stretches, report)
    problems = observer.read_journals() + crew.failures
    figures = {
        **_decisions(ledger, problems),
        "operations": sum(crew.counters.done),
        "processes": processes,
        "lost_by_living": len(observer.observations.lost),
        "held_by_dead": len(observer.observations.lingering),
        "details": {
            **observer.observations.lost,
            **observer.observations.lingering,
        },
        "kills": crew.kills,
        "stops": crew.stops,
        "children": sum(crew.counters.children),
        "namespaces": crew.why_unconfined or "PID and UTS",
        "seconds": round(time.monotonic() - started, 1),
    }
    ledger.close()
    return figures


def _supervise(
    crew: ChaosCrew, observer: Observer, operations: int, report: Report
) -> None:
    """Have accidents, and look, until the work is done."""
    chance = random.Random(operations)
    next_accident = 0.0
    while crew.tend():
        time.sleep(LOOK_SECONDS)
        observer.look()
        if time.monotonic() >= next_accident:
            crew.have_accident(observer.look)
            pause = chance.uniform(*ACCIDENT_SECONDS) / len(crew.places)
            next_accident = time.monotonic() + pause
        done = sum(crew.counters.done)
        report(f"{done} of {operations} operations, {crew.kills} kills")


def _wait_for_orphans(folder: Path) -> None:
    """Until the children of workers that have ended have ended too."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    names = [path.name for path in folder.iterdir()]
    while any(lives(folder, name) for name in names):
        if time.monotonic() > deadline:
            return
        time.sleep(LOOK_SECONDS)


def _drain(
    url: str,
    observer: Observer,
    turns: list[int],
    stretches: list[int],
    report: Report,
) -> None:
    """Let a broker that comes by end what all the dead have left, as long as the rules
    allow it to take.
    """
    broker = Broker(SQLLedger(url), [FixedDevices()], ttl_seconds=TTL_SECONDS)
    keeper = Keeper(broker, turns, stretches, 0)
    observer.look()
    while set(observer.live) - set(observer.observations.lingering):
        report(f"{len(observer.live)} leases of the dead")
        keeper.turn()
        time.sleep(LOOK_SECONDS)
        observer.look()
    broker.close()


def _decisions(ledger: SQLLedger, problems: Sequence[str]) -> dict[str, Any]:
    """What the history says, replayed."""
    everything = ledger.leases(time.time(), live=False, limit=EVERYTHING)
    leases = {lease.id: lease for lease in everything}
    events = ledger.events(limit=EVERYTHING)
    kinds = Counter(event.kind.value for event in events)
    return {
        "double_grants": replay(events, leases),
        "problems": [*problems, *incoherent(events, leases)],
        "events": dict(sorted(kinds.items())),
    }
