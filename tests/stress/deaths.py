"""Sudden deaths: workers ask for, renew, give back and forget slices through brokers of
their own on one SQLite file, while the parent kills them at random and starts others in
their place.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, HolderKind, RequestState
from jupyter_aistack.exceptions import LeaseError, Refused
from jupyter_aistack.ledger.sql.ledger import SQLLedger

from .devices import SPECS, FixedDevices
from .replay import EVERYTHING, check

HOST = "stress"
TTL_SECONDS = 0.5
KILL_SECONDS = (0.1, 0.5)
Report = Callable[[str], None]

# -- workers ---------------------------------------------------------------------------


class Worker:
    """One process's life: asks, renews, gives back and forgets, as chance has it, until
    its share of work is done.
    """

    def __init__(self, url: str, seed: int, done: Any, number: int, share: int) -> None:
        self.broker = Broker(
            SQLLedger(url), [FixedDevices()], host=HOST, ttl_seconds=TTL_SECONDS
        )
        self.chance = random.Random(seed)
        self.done, self.number, self.share = done, number, share
        self.held: list[Lease] = []
        pid = os.getpid()
        self.holder = Holder(
            kind=HolderKind.PROCESS, id=f"pid-{pid}", user="stress", host=HOST, pid=pid
        )

    def run(self) -> None:
        while self.done[self.number] < self.share:
            act = self.chance.choices(
                [self.ask, self.renew, self.give_back, self.forget], [4, 4, 3, 1]
            )[0]
            with suppress(Refused, LeaseError):
                act()

    def count(self) -> None:
        self.done[self.number] += 1

    def ask(self) -> None:
        if len(self.held) > 2:
            return
        patience = self.chance.choice([0.0, 0.0, 0.3, None])
        self.count()
        request = self.broker.submit(
            self.chance.choice(SPECS),
            self.holder,
            # What a living process forgets ends then, and at no other time.
            lease_seconds=self.chance.choice([TTL_SECONDS, 4 * TTL_SECONDS]),
            patience_seconds=patience,
        )
        if request.state is RequestState.QUEUED and self.chance.random() < 0.8:
            request = self.broker.cancel(request.id)
        if request.state is RequestState.GRANTED:
            self.held.append(self.broker.lease(request.lease_id))

    def renew(self) -> None:
        for lease in self._some():
            self.count()
            self.broker.renew(lease.id, lease.token)

    def give_back(self) -> None:
        for lease in self._some():
            self.count()
            self.broker.release(lease.id, lease.token)

    def forget(self) -> None:
        """Neither renew nor release: its own end must come."""
        if self.held and self.chance.random() < 0.3:
            self.held.remove(self.chance.choice(self.held))

    def _some(self) -> Iterator[Lease]:
        """One lease; it is often given back or lost already, and then tried all the
        same.
        """
        if self.held:
            lease = self.chance.choice(self.held)
            yield lease
            if self.chance.random() < 0.5 and lease in self.held:
                self.held.remove(lease)


def work(url: str, seed: int, done: Any, number: int, share: int) -> None:
    Worker(url, seed, done, number, share).run()


class Crew:
    """The worker processes, and the accidents that befall them."""

    def __init__(self, url: str, operations: int, processes: int, seed: int) -> None:
        # Each worker is forked from a server that has imported this module but never
        # opened a ledger.
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(
            [
                "jupyter_aistack.broker.broker",
                "jupyter_aistack.ledger.sql.ledger",
                "psutil",
            ]
        )
        self.url, self.chance = url, random.Random(seed)
        self.shares = [
            operations // processes + (n < operations % processes)
            for n in range(processes)
        ]
        # Without a lock: a process that is killed while it holds one would keep it for
        # ever.
        self.done = self.context.RawArray("q", processes)
        self.kills = 0
        self.failures: list[str] = []
        self.running = {number: self._start(number) for number in range(processes)}

    def _start(self, number: int) -> BaseProcess:
        arguments = (
            self.url,
            self.chance.getrandbits(32),
            self.done,
            number,
            self.shares[number],
        )
        process = self.context.Process(target=work, args=arguments)
        process.start()
        return process

    def tend(self, *, kill: bool) -> bool:
        """Kill one of them if asked to, replace those that were killed. Whether anyone
        still works.
        """
        if kill and self.running:
            victim = self.chance.choice(list(self.running.values()))
            victim.kill()
            victim.join()
        for number, process in list(self.running.items()):
            if process.exitcode is not None:
                self._replace(number, process.exitcode)
        return bool(self.running)

    def _replace(self, number: int, exitcode: int) -> None:
        del self.running[number]
        if exitcode == -9:
            self.kills += 1
        elif exitcode:
            self.failures.append(f"a worker ended with status {exitcode}")
        if self.done[number] < self.shares[number] and exitcode in (0, -9):
            self.running[number] = self._start(number)

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.join()


# -- the run ---------------------------------------------------------------------------


def stress(
    path: Path, operations: int, processes: int, seed: int, report: Report
) -> dict[str, Any]:
    """Run it all on a new ledger at `path`; the figures, findings included.

    Args:
        report: is told how far it is.
    """
    started, url = time.monotonic(), f"sqlite:///{path}"
    crew = Crew(url, operations, processes, seed)
    ledger = SQLLedger(url)
    try:
        seen_late = supervise(crew, ledger, report)
    finally:
        crew.stop()
    findings = check(ledger, HOST, time.time() + 2 * TTL_SECONDS)
    events = Counter(event.kind.value for event in ledger.events(limit=EVERYTHING))
    ledger.close()
    return {
        "operations": sum(crew.done),
        "processes": processes,
        "double_grants": findings.double_grants,
        "alive_after_ttl": findings.alive_after_ttl + seen_late,
        "kills": crew.kills,
        "seconds": round(time.monotonic() - started, 1),
        "problems": findings.problems + crew.failures + damage(path),
        "events": dict(sorted(events.items())),
    }


def supervise(crew: Crew, ledger: SQLLedger, report: Report) -> int:
    """Kill and replace workers until the work is done. How many leases were seen alive
    past their time meanwhile.
    """
    late, is_busy, next_kill = 0, True, 0.0
    while is_busy:
        time.sleep(0.02)
        kill = time.monotonic() >= next_kill
        if kill:
            next_kill = time.monotonic() + crew.chance.uniform(*KILL_SECONDS)
        is_busy = crew.tend(kill=kill)
        report(f"{sum(crew.done)} operations, {crew.kills} kills")
        now = time.time()
        late += sum(lease.is_expired(now) for lease in ledger.leases(now))
    return late


def damage(path: Path) -> list[str]:
    """What SQLite itself finds wrong with the file."""
    connection = sqlite3.connect(path)
    answers = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    connection.close()
    return [] if answers == ["ok"] else answers
