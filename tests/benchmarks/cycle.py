"""One turn of the broker with a long queue: read, plan, and what little there is to
apply.

10,000 requests of 50 users wait in three queues, in ten different sizes, each user's for
a server process that lives; 1,000 leases of 1/8 fill the 125 GPUs of the host, so nothing
can be granted until one of them ends.
``ms_grant_one`` is the turn after one has: it plans and writes one grant.
``ms_100_hosts`` is the plan alone, for 100 hosts of 8 GPUs, all taken, and the same
queue.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.device import Device, Inventory, Slice, SliceKind
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import Lease, LeaseTransition
from jupyter_aistack.core.model.plan import Grant, Plan, Snapshot, grant_to_lease
from jupyter_aistack.core.model.policy import Policy, Queue
from jupyter_aistack.core.model.request import Holder, HolderKind, Request
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.placement.cache import PlacementCache
from jupyter_aistack.core.scheduling.cycle import plan
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.system.processes import boot_id, pid_namespace
from jupyter_aistack.testing import ManualClock
from tests.benchmarks.harness import Report, main

HOST, GPUS, LEASES, REQUESTS, USERS, HOSTS = "box", 125, 1_000, 10_000, 50, 100
SPECS = ("1/8", "1/4", "1/2", "1", "2", "1/2x2", "20GiB", "40GiB", "gpu:1/3", "3/4")
QUEUES = (
    Queue(name="interactive", quota=Fraction(20), priority=1),
    Queue(name="default", weight=Fraction(2)),
    Queue(name="batch", is_batch=True, limit=Fraction(100)),
)
POLICY = Policy(queues=QUEUES)
FIRST_PID = 100_000
START = 1_000_000.0
TTL_SECONDS = 1e6
"""Nothing ends by itself while it is measured."""
EMPTY_PLANS = 200


def holder(number: int) -> Holder:
    """One of the users' kernels, asked for by that user's server: its process is another
    value for each, as it is when it was read from a ledger.
    """
    user = number % USERS
    return Holder(
        kind=HolderKind.KERNEL,
        id=f"k-{number}",
        user=f"user-{user}",
        host=HOST,
        pid=FIRST_PID + user,
        pid_started_at=START / 2 + user,
        boot_id=boot_id(),
        pid_namespace=pid_namespace(),
        label="a.ipynb",
    )


def request(number: int, spec: str) -> Request:
    """The request with that number, in the next of the queues."""
    queue = QUEUES[number % len(QUEUES)].name
    at = START + number / 1000
    return Request(
        id=f"r-{number}",
        spec=parse_spec(spec),
        holder=holder(number),
        queue=queue,
        submitted_at=at,
    )


def waiting() -> Iterator[Request]:
    """The queue."""
    return (
        request(LEASES + number, SPECS[number % len(SPECS)])
        for number in range(REQUESTS)
    )


def share(device: Device, part: Fraction) -> Slice:
    """That part of a device."""
    memory_bytes = int(part * device.memory_bytes)
    kind = SliceKind.GPU if part == 1 else SliceKind.SHARE
    return Slice(
        device_id=device.id,
        kind=kind,
        fraction=part,
        memory_bytes=memory_bytes,
        uuid=device.id,
    )


def full_broker(ledger: Ledger) -> Broker:
    """A broker of a host on which everything is taken and many wait."""
    provider, clock = SimulatedProvider(f"{GPUS}xH100-80GB"), ManualClock(START)
    options = {
        "policy": POLICY,
        "host": HOST,
        "clock": clock,
        "ttl_seconds": TTL_SECONDS,
    }
    broker = Broker(ledger, [provider], is_alive=lambda pid, since: True, **options)
    devices = broker.inventory().devices
    grants = []
    for number in range(LEASES):
        asked = ledger.submit(request(number, "1/8"))
        slice_ = share(devices[number % GPUS], Fraction(1, 8))
        grants.append(
            Grant(request=asked, slices=(slice_,), expires_at=START + TTL_SECONDS)
        )
    ledger.apply(
        Plan(version=ledger.read(HOST, START).version, actions=tuple(grants)), START
    )
    for each in waiting():
        ledger.submit(each)
    clock.advance(REQUESTS / 100)
    return broker


def many_hosts() -> Snapshot:
    """Many hosts, every GPU taken whole, and the same queue."""
    (model,) = SimulatedProvider("1xH100-80GB").discover(HOST)
    devices = tuple(
        replace(model, id=f"GPU-{host}-{index}", host=f"box-{host}", index=index)
        for host in range(HOSTS)
        for index in range(8)
    )
    leases = tuple(whole_lease(number, device) for number, device in enumerate(devices))
    inventory = Inventory(host=HOST, devices=devices)
    return Snapshot(
        inventory=inventory, leases=leases, requests=tuple(waiting()), policy=POLICY
    )


def whole_lease(number: int, device: Device) -> Lease:
    """A lease of all of a device."""
    asked = request(number, "1")
    grant = Grant(
        request=asked,
        slices=(share(device, Fraction(1)),),
        expires_at=START + TTL_SECONDS,
    )
    return grant_to_lease(grant, f"l-{number}", number + 1, START)


def median_ms(
    turn: Callable[[], object], rounds: int, before: Callable[[], object] = lambda: None
) -> float:
    """The median of `rounds` turns after one that does not count, in milliseconds;
    `before` each is not timed.
    """
    took = []
    for _ in range(rounds + 1):
        before()
        begin = time.perf_counter()
        turn()
        took.append((time.perf_counter() - begin) * 1000)
    return statistics.median(took[1:])


def turns(broker: Broker, rounds: int) -> tuple[float, float]:
    """A turn in which nothing happens, and one after a lease has ended, in
    milliseconds.
    """
    idle = median_ms(lambda: expect(broker, 0), rounds)
    return idle, median_ms(
        lambda: expect(broker, 1), rounds, before=lambda: end_one(broker)
    )


def expect(broker: Broker, grants: int) -> None:
    """One turn, and how many leases must come of it."""
    granted = [
        event for event in broker.cycle() if event.kind is EventKind.LEASE_GRANTED
    ]
    assert len(granted) == grants, granted


def end_one(broker: Broker) -> None:
    """End a lease behind the broker's back, and have somebody wait in front who needs
    no more than that.
    """
    lease = broker.leases()[-1]
    broker.ledger.step(lease.id, lease.token, LeaseTransition.FAIL, broker.clock())
    broker.ledger.submit(replace(request(0, "1/8"), id=f"r-of-{lease.id}", priority=1))


def measure(rounds: int) -> Report:
    in_memory = turns(full_broker(MemoryLedger()), rounds)
    with TemporaryDirectory() as folder:
        broker = full_broker(SQLLedger(f"sqlite:///{Path(folder)}/ledger.sqlite"))
        on_sqlite = turns(broker, rounds)
        broker.close()
    cache = PlacementCache()
    hosts, now = many_hosts(), START + REQUESTS / 100
    nothing = replace(
        hosts, inventory=replace(hosts.inventory, devices=hosts.inventory.devices[:8])
    )
    nothing = replace(nothing, leases=(), requests=())
    figures = {
        "ms_10k_requests": in_memory[0],
        "ms_10k_requests_sqlite": on_sqlite[0],
        "ms_grant_one": in_memory[1],
        "ms_grant_one_sqlite": on_sqlite[1],
        "ms_100_hosts": median_ms(
            lambda: plan(hosts, now, ttl_seconds=60.0, cache=cache), rounds
        ),
        "us_plan_empty": 1000
        * median_ms(lambda: plan(nothing, now, ttl_seconds=60.0), EMPTY_PLANS),
    }
    goals = {
        "ms_10k_requests": 20,
        "ms_10k_requests_sqlite": 20,
        "ms_100_hosts": 100,
        "us_plan_empty": 200,
    }
    return Report(figures=figures, goals=goals)


if __name__ == "__main__":
    main("cycle", measure, rounds=9)
