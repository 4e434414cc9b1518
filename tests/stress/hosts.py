"""Hosts: two machines whose brokers share a ledger on PostgreSQL, and users with clients
on both, while brokers, clients and the server itself are killed. Afterwards the history
is replayed: nothing is given twice, no limit is broken, and nothing is lost that
anybody was told of.

Each broker is the real one, in a mount namespace where the machine has another boot id
and in a UTS namespace with a name of its own; each client is a process of its user.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease, Outcome
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.exceptions import LeaseLost
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.system.users import login_of
from tests.fakes.host_broker import ALICE, BOB, CAROL, DAVE, LiveBroker
from tests.fakes.postgres_server import OWNER, PostgresServer
from tests.fakes.waiting import wait_until

from .replay import ENDINGS, EVERYTHING, incoherent

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
HOSTS = {
    "near": "11111111-1111-4111-8111-111111111111",
    "far": "22222222-2222-4222-8222-222222222222",
}
"""Boot ids by name."""
USERS = (ALICE, BOB, CAROL, DAVE)
MOST_SLICES = 1
"""What a user may hold: each has a client on either host, so the two wait for each other.
"""
SETTINGS = f"""
c = get_config()
c.AIStack.user_limits = {{"*": {{"slices": {MOST_SLICES}}}}}
c.AIStack.cycle_seconds = 0.5
"""
CLIENT = Path(__file__).with_name("hosts_client.py")
LOOK_SECONDS = 0.1
DRAIN_SECONDS = 120.0
STOP_SECONDS = 1.0
Report = Callable[[str], None]


class HostOfItsOwn(LiveBroker):
    """A host broker on what it takes for another machine."""

    @property
    def name(self) -> str:
        """What the machine is called."""
        return self.folder.name

    def command(self) -> list[str]:
        boot_id = self.folder / "boot_id"
        boot_id.write_text(HOSTS[self.name] + "\n")
        enter = f'hostname {self.name}; mount --bind {boot_id} {BOOT_ID}; exec "$@"'
        namespaces = ["unshare", "--mount", "--uts", "sh", "-c", enter, "sh"]
        return [*namespaces, *super().command()]

    def tend(self) -> None:
        """Start it again where it has ended."""
        if self.process is None or self.process.poll() is not None:
            self.spawn()


@dataclass
class ClientPost:
    """A place for a client: who works there, for whom, and how much is left."""

    number: int
    uid: int
    host: HostOfItsOwn
    share: int
    folder: Path
    incarnation: int = 0
    process: subprocess.Popen[bytes] | None = None
    journals: list[Path] = field(default_factory=list)

    @property
    def notes(self) -> list[dict[str, str]]:
        """All that the clients of this place have been told."""
        lines = (line for path in self.journals for line in _lines(path))
        return [json.loads(line) for line in lines]

    @property
    def done(self) -> int:
        """How often a client here has asked and was answered."""
        return sum(
            line.startswith('{"word": "done"')
            for path in self.journals
            for line in _lines(path)
        )

    def tend(self) -> bool:
        """Start a client where there is none and work is left; whether one works."""
        if self.process is not None and self.process.poll() is None:
            return True
        left = self.share - self.done
        if left <= 0:
            return False
        self.incarnation += 1
        name = f"client-{self.number}-{self.incarnation}"
        journal = self.folder / name
        self.journals.append(journal)
        facts = (self.host.path, journal, name, self.uid, left)
        self.process = subprocess.Popen(
            [sys.executable, "-S", str(CLIENT), *map(str, facts)], cwd="/"
        )
        return True

    def kill(self) -> None:
        """End its client suddenly."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


class Fleet:
    """Both hosts, the server, and all clients; and the accidents that befall them.

    Args:
        server: the ledger's.
        folder: of the hosts; other users may enter it.
        operations: how often all clients ask together.
        clients: how many there are at a time.
        seed: what chance starts from.
    """

    def __init__(
        self,
        server: PostgresServer,
        folder: Path,
        operations: int,
        clients: int,
        seed: int,
    ) -> None:
        self._server = server
        self._chance = random.Random(seed)
        self.kills: Counter[str] = Counter()
        settings = folder / "aistack_config.py"
        settings.write_text(SETTINGS)
        journals = folder / "journals"
        journals.mkdir()
        options = ("--ledger", server.url, "--config", str(settings))
        self.hosts = [self._host(folder / name, options) for name in HOSTS]
        self.posts = [
            ClientPost(
                number=number,
                uid=USERS[number // len(HOSTS) % len(USERS)],
                host=self.hosts[number % len(HOSTS)],
                share=operations // clients + (number < operations % clients),
                folder=journals,
            )
            for number in range(clients)
        ]

    def _host(self, folder: Path, options: tuple[str, ...]) -> HostOfItsOwn:
        folder.mkdir()
        return HostOfItsOwn(folder, options)

    @property
    def done(self) -> int:
        """How often all clients have asked and were answered."""
        return sum(post.done for post in self.posts)

    def start(self) -> None:
        """Start the brokers, and wait till they answer."""
        for host in self.hosts:
            host.start()

    def tend(self) -> bool:
        """Replace whoever was killed; whether any client works still."""
        for host in self.hosts:
            host.tend()
        working = [post.tend() for post in self.posts]
        return any(working)

    def accidents(self) -> dict[str, Callable[[], None]]:
        """All that may happen."""
        return {
            "client": self._kill_client,
            "broker": self._kill_broker,
            "server": self._kill_server,
            "server stopped": self._stop_server,
        }

    def have(self, accident: str) -> None:
        """Let one of them happen."""
        self.accidents()[accident]()
        self.kills[accident] += 1

    def have_any(self) -> None:
        """Let one happen that chance chooses: clients die most often."""
        names = list(self.accidents())
        self.have(self._chance.choices(names, [6, 3, 1, 1])[0])

    def _kill_client(self) -> None:
        self._chance.choice(self.posts).kill()

    def _kill_broker(self) -> None:
        self._chance.choice(self.hosts).kill()

    def _kill_server(self) -> None:
        self._server.kill()
        self._server.start()

    def _stop_server(self) -> None:
        with self._server.stopped():
            time.sleep(STOP_SECONDS)

    def end(self) -> None:
        """End all processes."""
        for post in self.posts:
            post.kill()
        for host in self.hosts:
            if host.process is not None:
                host.kill()


def hosts(
    server: PostgresServer,
    folder: Path,
    operations: int,
    clients: int,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Run it all; the figures, findings included.

    Args:
        server: a server with an empty database.
        folder: an empty folder that other users may enter.
        report: is told how far it is.
    """
    started = time.monotonic()
    _keep_what_is_committed(server)
    fleet = Fleet(server, folder, operations, clients, seed)
    try:
        fleet.start()
        _supervise(fleet, operations, report)
        ledger = SQLLedger(server.url)
        problems = _drain(ledger, fleet, report)
    finally:
        fleet.end()
    figures = {
        **_findings(ledger, fleet.posts, problems),
        "operations": fleet.done,
        "processes": clients,
        "kills": sum(fleet.kills.values()),
        "accidents": dict(fleet.kills),
        "seconds": round(time.monotonic() - started, 1),
    }
    ledger.close()
    return figures


def why_no_hosts() -> str:
    """Why no host of its own can be made here; empty where one can."""
    if os.getuid() != 0:
        return "only root can make a machine's boot id another"
    command = f"mount --bind /dev/null {BOOT_ID}"
    tried = subprocess.run(
        ["unshare", "--mount", "--uts", "sh", "-c", command], capture_output=True
    )
    return tried.stderr.decode().strip()


def _keep_what_is_committed(server: PostgresServer) -> None:
    """Have the server answer for a change only once it would outlive the server: those
    of tests need not.
    """
    engine = sa.create_engine(server.url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER ROLE {OWNER} SET synchronous_commit = on")
    engine.dispose()


def _supervise(fleet: Fleet, operations: int, report: Report) -> None:
    """Have accidents until the work is done: each kind once, evenly over the work, and
    between them as chance will have it.
    """
    planned = list(fleet.accidents())
    chance = random.Random(operations)
    next_accident = time.monotonic() + chance.uniform(2, 4)
    while fleet.tend():
        time.sleep(LOOK_SECONDS)
        done = fleet.done
        is_planned_due = done * (len(planned) + 1) > operations
        if planned and is_planned_due:
            fleet.have(planned.pop(0))
        elif time.monotonic() >= next_accident:
            fleet.have_any()
            next_accident = time.monotonic() + chance.uniform(1, 4)
        accidents = sum(fleet.kills.values())
        report(f"{done} of {operations} requests, {accidents} accidents")


def _drain(ledger: SQLLedger, fleet: Fleet, report: Report) -> list[str]:
    """Until the brokers have ended all that the dead have left; what is left then."""
    deadline = time.monotonic() + DRAIN_SECONDS

    def is_empty() -> bool:
        fleet.tend()
        left = (*ledger.leases(time.time()), *ledger.waiting())
        report(f"{len(left)} leases and requests are left")
        return not left or time.monotonic() > deadline

    wait_until(is_empty, seconds=2 * DRAIN_SECONDS)
    live = [f"lease {lease.id} lives on" for lease in ledger.leases(time.time())]
    return live + [f"request {request.id} waits on" for request in ledger.waiting()]


# -- what the history says -------------------------------------------------------------


def _findings(
    ledger: SQLLedger, posts: Iterable[ClientPost], problems: Sequence[str]
) -> dict[str, Any]:
    everything = ledger.leases(time.time(), live=False, limit=EVERYTHING)
    leases = {lease.id: lease for lease in everything}
    events = ledger.events(limit=EVERYTHING)
    doubles, above_limit = _replayed(events, leases)
    lost = [loss for post in posts for loss in _lost(ledger, post, leases)]
    kinds = Counter(event.kind.value for event in events)
    by_host = Counter(lease.holder.host_name for lease in leases.values())
    return {
        "double_grants": doubles,
        "above_limit": above_limit,
        "lost": lost,
        "problems": [*problems, *incoherent(events, leases)],
        "events": dict(sorted(kinds.items())),
        "leases_by_host": dict(sorted(by_host.items())),
    }


def _replayed(events: Iterable[Event], leases: Mapping[str, Lease]) -> tuple[int, int]:
    """How many grants gave away what was not free, and how many brought a user above
    the limit over both hosts; in the order in which the ledger decided.
    """
    shares: defaultdict[tuple[str, str], Fraction] = defaultdict(Fraction)
    slices: Counter[str] = Counter()
    doubles = 0
    above_limit = 0
    for event in events:
        is_grant = event.kind is EventKind.LEASE_GRANTED
        if not is_grant and event.kind not in ENDINGS:
            continue
        lease = leases[event.lease_id]
        sign = 1 if is_grant else -1
        slices[lease.holder.user] += sign * len(lease.slices)
        for slice_ in lease.slices:
            shares[lease.holder.host, slice_.device_id] += sign * slice_.fraction
        if is_grant:
            doubles += any(share > 1 for share in shares.values())
            above_limit += slices[lease.holder.user] > MOST_SLICES
    return doubles, above_limit


def _lost(
    ledger: SQLLedger, post: ClientPost, leases: Mapping[str, Lease]
) -> list[str]:
    """What the clients of a place were told and the ledger does not know of."""
    lost = []
    notes = post.notes
    # Told before anything of it was used; asked for again it would be another.
    failed = {note["key"] for note in notes if note.get("code") == LeaseLost.__name__}
    for note in notes:
        key = note["key"]
        lease = leases.get(note.get("lease", ""))
        if note["word"] == "handed" and (lease is None or lease.holder.pid is None):
            lost.append(f"{key}: its lease {note['lease']} is gone")
        if note["word"] == "given-back":
            is_released = lease is not None and lease.outcome is Outcome.RELEASED
            if note["outcome"] != "released" or not is_released:
                why = "" if lease is None else conditions_text(lease.conditions)
                lost.append(f"{key}: {note['outcome']} when given back: {why}")
        if note["word"] == "done" and key not in failed:
            lost += _lost_request(ledger, post.uid, key)
    return lost


def _lost_request(ledger: SQLLedger, uid: int, key: str) -> list[str]:
    """A request that was answered is written down, and decided."""
    request = ledger.request_of_key(login_of(uid), key)
    if request is None or request.state is RequestState.QUEUED:
        return [f"{key}: its request is gone, or not decided"]
    return []
