"""Many processes, one ledger, sudden deaths: is a device ever promised twice, does a
lease outlive its time?

    python -m tests.stress --operations 10000 --processes 8 [--json]

Workers ask for, renew, give back and forget slices through brokers of their own on one
SQLite file, while the parent kills them at random and starts others in their place.
Afterwards the history is replayed event by event: the sequence of events is the order
in which the ledger decided, whatever each process's clock said. The last line printed
is one JSON object; the exit status is 1 when anything was found.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.device import Device, DeviceKind, SliceKind
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import WEEK_SECONDS
from jupyter_aistack.core.model.request import Holder, HolderKind, RequestState
from jupyter_aistack.core.model.usage_history import Account, decayed_use, equivalents
from jupyter_aistack.exceptions import LeaseError, Refused
from jupyter_aistack.ledger.lease_end import due_at
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from tests.fakes.bare_provider import BareProvider

HOST = "stress"
TTL_SECONDS = 0.5
KILL_SECONDS = (0.1, 0.5)
SPECS = ("1/4", "1/3", "1/2", "1/2x2", "1", "2", "10GiB", "cpu:1", "cpu:2", "cpu:1/4")
DEVICES = (
    *(
        Device(
            id=f"GPU-{i}",
            host=HOST,
            kind=DeviceKind.GPU,
            index=i,
            name="Stress GPU",
            memory_bytes=40 << 30,
        )
        for i in range(2)
    ),
    Device(
        id="CPU-stress",
        host=HOST,
        kind=DeviceKind.CPU,
        index=0,
        name="Stress CPU",
        memory_bytes=8 << 30,
        cores=(0, 1, 2, 3),
    ),
)
ENDINGS = {
    EventKind.LEASE_RELEASED,
    EventKind.LEASE_EXPIRED,
    EventKind.LEASE_PREEMPTED,
    EventKind.LEASE_FAILED,
    EventKind.LEASE_ABANDONED,
    EventKind.LEASE_RECLAIMED,
    EventKind.LEASE_LAPSED,
}


class FixedDevices(BareProvider):
    """Devices that exist for the broker alone."""

    name = "fixed"
    simulated = True

    def discover(self, host: str) -> tuple[Device, ...]:
        return DEVICES


@dataclass
class Findings:
    """What the checker found; all zero and empty is what we want.

    Attributes:
        double_grants: grants of something that somebody else still held.
        alive_after_ttl: leases seen alive, or ended by other means, past their end.
        problems: anything else, one sentence each.
    """

    double_grants: int = 0
    alive_after_ttl: int = 0
    problems: list[str] = field(default_factory=list)


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


# -- the checker -----------------------------------------------------------------------


def check(ledger: SQLLedger, now: float) -> Findings:
    """Replay the whole history of a ledger, then let time end what still lives."""
    findings = Findings()
    ledger.leases(now)
    everything = 10**9
    leases = {
        lease.id: lease for lease in ledger.leases(now, live=False, limit=everything)
    }
    events = ledger.events(limit=everything)
    findings.double_grants = replay(events, leases)
    findings.problems += incoherent(events, leases)
    findings.problems += miscounted(ledger.read(HOST, now).accounts, leases)
    late = [
        lease
        for lease in leases.values()
        if lease.is_expired(now) or (lease.ended_at or 0) > due_at(lease)
    ]
    findings.alive_after_ttl = len(late)
    return findings


def replay(events: Iterable[Event], leases: Mapping[str, Lease]) -> int:
    """How many grants gave away what was not free, in the order of the events."""
    held: dict[str, Lease] = {}
    doubles = 0
    for event in events:
        if event.kind is EventKind.LEASE_GRANTED:
            held[event.lease_id] = leases[event.lease_id]
            doubles += not is_within(list(held.values()), leases[event.lease_id])
        elif event.kind in ENDINGS:
            held.pop(event.lease_id, None)
    return doubles


def is_within(held: Sequence[Lease], newest: Lease) -> bool:
    """Whether the devices of the newest lease can hold all that is held on them."""
    touched = {slice_.device_id for slice_ in newest.slices}
    for device in DEVICES:
        pieces = [
            slice_
            for lease in held
            for slice_ in lease.slices
            if slice_.device_id == device.id
        ]
        if device.id not in touched:
            continue
        if sum((slice_.fraction for slice_ in pieces), Fraction(0)) > 1:
            return False
        if sum(slice_.memory_bytes for slice_ in pieces) > device.memory_bytes:
            return False
        # All CPU specs here are whole cores, so no core may be in two leases.
        cores = Counter(
            core
            for slice_ in pieces
            if slice_.kind is SliceKind.CPU
            for core in slice_.cores
        )
        if any(times > 1 for times in cores.values()):
            return False
    return True


def incoherent(events: Sequence[Event], leases: Mapping[str, Lease]) -> list[str]:
    """Where events and leases tell different stories."""
    granted = Counter(
        event.lease_id for event in events if event.kind is EventKind.LEASE_GRANTED
    )
    ended = Counter(event.lease_id for event in events if event.kind in ENDINGS)
    problems = []
    if granted != Counter(list(leases)):
        problems.append("leases without a grant, or granted twice")
    if ended != Counter(lease.id for lease in leases.values() if not lease.is_live):
        problems.append("leases that ended without an event, or twice")
    if len({lease.request_id for lease in leases.values()}) != len(leases):
        problems.append("a request was granted twice")
    order = [
        leases[event.lease_id].token
        for event in events
        if event.kind is EventKind.LEASE_GRANTED
    ]
    if order != sorted(set(order)):
        problems.append("tokens do not grow")
    return problems


def miscounted(accounts: Iterable[Account], leases: Mapping[str, Lease]) -> list[str]:
    """Whose account is not the sum of what their ended leases used, each counted
    once.
    """
    ended: dict[tuple[str, str], list[Lease]] = {}
    for lease in leases.values():
        if not lease.is_live:
            ended.setdefault((lease.holder.user, lease.queue), []).append(lease)
    known = {(account.user, account.queue): account for account in accounts}
    if known.keys() != ended.keys():
        return ["accounts without an ended lease, or the other way round"]
    return [
        f"the account of {user} in {queue} is not what their leases used"
        for (user, queue), mine in ended.items()
        if not math.isclose(
            known[user, queue].decayed,
            used_by(mine, known[user, queue].at),
            rel_tol=1e-6,
        )
    ]


def used_by(ended: Iterable[Lease], at: float) -> float:
    """What ended leases weigh at a time after they all have ended."""
    return sum(
        decayed_use(
            equivalents(lease.slices),
            lease.granted_at,
            lease.ended_at or 0.0,
            at,
            WEEK_SECONDS,
        )
        for lease in ended
    )


# -- the run ---------------------------------------------------------------------------


def stress(path: Path, operations: int, processes: int, seed: int) -> dict[str, Any]:
    """Run it all on a new ledger at `path`; the figures, findings included."""
    started, url = time.monotonic(), f"sqlite:///{path}"
    crew = Crew(url, operations, processes, seed)
    ledger = SQLLedger(url)
    try:
        seen_late = supervise(crew, ledger)
    finally:
        crew.stop()
    findings = check(ledger, time.time() + 2 * TTL_SECONDS)
    events = Counter(event.kind.value for event in ledger.events(limit=10**9))
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


def supervise(crew: Crew, ledger: SQLLedger) -> int:
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
        now = time.time()
        late += sum(lease.is_expired(now) for lease in ledger.leases(now))
    return late


def damage(path: Path) -> list[str]:
    """What SQLite itself finds wrong with the file."""
    connection = sqlite3.connect(path)
    answers = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    connection.close()
    return [] if answers == ["ok"] else answers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--operations",
        type=int,
        default=10_000,
        help="requests, renewals and releases in all",
    )
    parser.add_argument(
        "--processes", type=int, default=8, help="how many workers at a time"
    )
    parser.add_argument("--seed", type=int, default=0, help="what chance starts from")
    parser.add_argument(
        "--json", action="store_true", help="print nothing but the figures"
    )
    options = parser.parse_args(arguments)
    if not options.json:
        print(
            f"{options.operations} operations by {options.processes} processes, leases of {TTL_SECONDS} s ..."
        )
    with tempfile.TemporaryDirectory(prefix="aistack-stress-") as folder:
        figures = stress(
            Path(folder) / "ledger.sqlite",
            options.operations,
            options.processes,
            options.seed,
        )
    print(json.dumps(figures))
    result = (
        figures["double_grants"] or figures["alive_after_ttl"] or figures["problems"]
    )
    return 1 if result else 0


if __name__ == "__main__":
    sys.exit(main())
