"""Does the energy that is accounted add up to the device's own counter?

The counter is read before and after a load of two tenants. Beside it stand the power
that was drawn, summed up over the same time, and what the accounts give to leases and
to the system, where they keep any. Leases are judged without the system: accounts that
charge it everything add up as well, and tell nobody what he used. A read must be cheap.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.device import Device
from tests.benchmarks.gpu.bench import (
    Bench,
    Row,
    broker,
    by_mode,
    environment,
    gpus,
    leased,
)
from tests.benchmarks.gpu.workers import all_at_once, worker

SECONDS = 20.0
LOAD_SECONDS, LOOK_SECONDS = 10.0, 0.1
DRY_WATTS = 400.0
TENANTS = 2
SYSTEM = "system"
LEAST_OF_LEASES = 0.95
"""Of the counter: all of the GPU is leased and at work, so its leases are to be charged
all of it. What is left to the system must be measured at the edges only.
"""
LEAST_BALANCE = 0.8
NO_COUNTER = "this GPU has no energy counter, or it did not move"
Sample = tuple[float, float, float]
"""Seconds, watts, and the counter in joules."""
Parts = Mapping[str, float]
"""Joules by whom they are charged to."""


def rows(bench: Bench) -> Iterator[Row]:
    def measure(mode: str, settings: dict[str, Any]) -> Iterator[Row]:
        tick(bench)
        with broker(**settings) as made:
            devices = gpus(made)
            if not devices:
                yield Row(name="energy", says="no GPU here can be shared")
                return
            yield Row(name="load", says=f"{mode}: two halves at work")
            samples, reads, parts = under_load(bench, made, devices[0])
        yield Row(name="read_ms", value=1000 * median(reads), most=10.0)
        yield from summed(samples)
        yield from accounted(samples, parts)

    yield from by_mode(measure)


def under_load(
    bench: Bench, made: Broker, device: Device
) -> tuple[list[Sample], list[float], Parts | None]:
    """Samples of the device while two tenants work, how long each took to read, and
    what the accounts say of it.
    """
    with ExitStack() as stack:
        held = [stack.enter_context(leased(made, "gpu:1/2")) for _ in range(TENANTS)]
        tenants = [
            stack.enter_context(worker(bench, environment(given))) for _, given in held
        ]
        for (lease, _), tenant in zip(held, tenants, strict=True):
            made.bind(lease.id, lease.token, pid=os.getpid(), root_pid=tenant.pid)
        all_at_once(tenants, "burn", what="matmul")
        before = parts_of(bench, made, device)
        looks = [look(bench, made, device)]
        end = time.monotonic() + bench.pick(LOAD_SECONDS, 0.5)
        while time.monotonic() < end:
            made.maintain()
            looks.append(look(bench, made, device))
            time.sleep(LOOK_SECONDS)
        after = parts_of(bench, made, device)
        looks.append(look(bench, made, device))
    samples = [sample for sample, _ in looks if sample is not None]
    return samples, [seconds for _, seconds in looks], moved(before, after)


def look(bench: Bench, made: Broker, device: Device) -> tuple[Sample | None, float]:
    """One sample, if the GPU tells, and how long it took to read."""
    tick(bench)
    begin = time.monotonic()
    use = made.usage()[1].get(device.id)
    seconds = time.monotonic() - begin
    if use is None or use.power_watts is None or use.energy_joules is None:
        return None, seconds
    return (begin, use.power_watts, use.energy_joules), seconds


def parts_of(bench: Bench, made: Any, device: Device) -> Parts | None:
    """Joules on the books of today and yesterday by whom they are charged to; None
    where no books are kept.
    """
    keep = getattr(made, "record_usage", None)
    if keep is None:
        return None
    tick(bench)
    keep(settle=True)
    day, parts = int(time.time() // 86400), Counter[str]()
    for charge in made.ledger.charges(day - 1, day):
        if charge.device_id == device.id:
            parts[charge.lease_id or SYSTEM] += charge.millijoules / 1000
    return parts


def moved(before: Parts | None, after: Parts | None) -> Parts | None:
    """What was charged in between."""
    if before is None or after is None:
        return None
    return {name: joules - before.get(name, 0.0) for name, joules in after.items()}


def tick(bench: Bench) -> None:
    """In a dry run, move the counter of the fake driver as far as its power says; it
    has one GPU.
    """
    if bench.device == "cuda":
        return
    file = Path(os.environ["FAKE_NVML_STATE"])
    joules = int(1000 * DRY_WATTS * time.monotonic())
    words = [
        word
        for word in file.read_text().split()
        if not word.startswith(("energy_mj=", "power_mw="))
    ]
    fresh = file.with_suffix(".new")
    fresh.write_text(
        " ".join([*words, f"energy_mj={joules}", f"power_mw={int(1000 * DRY_WATTS)}"])
        + "\n"
    )
    fresh.replace(file)


def drawn(samples: Sequence[Sample]) -> float:
    """Joules from the watts alone, each two neighbours joined by a straight line."""
    return sum(
        (later[0] - each[0]) * (each[1] + later[1]) / 2
        for each, later in pairwise(samples)
    )


def summed(samples: Sequence[Sample]) -> Iterator[Row]:
    """The power that was drawn over the counter."""
    counter = samples[-1][2] - samples[0][2] if len(samples) > 1 else 0.0
    if counter <= 0:
        yield Row(
            name="power_sum_vs_counter",
            says=f"n/a: {NO_COUNTER}",
        )
        return
    says = f"{counter:,.0f} J in {samples[-1][0] - samples[0][0]:.1f} s"
    yield Row(
        name="power_sum_vs_counter",
        value=drawn(samples) / counter,
        says=says,
        is_ratio=True,
    )


def accounted(samples: Sequence[Sample], parts: Parts | None) -> Iterator[Row]:
    """The parts of the accounts over the counter; they are made to add up to 1 % or
    better.
    """
    counter = samples[-1][2] - samples[0][2] if len(samples) > 1 else 0.0
    if parts is None or counter <= 0:
        why = "no accounts of energy are kept" if parts is None else NO_COUNTER
        yield Row(name="accounts_vs_counter", says=f"n/a: {why}")
        return
    of_leases = [joules for name, joules in parts.items() if name != SYSTEM]
    yield Row(
        name="accounts_vs_counter",
        value=sum(parts.values()) / counter,
        says=f"{len(parts)} parts",
        is_ratio=True,
        least=0.99,
        most=1.01,
    )
    yield Row(
        name="leases_vs_counter",
        value=sum(of_leases) / counter,
        says=f"{len(of_leases)} leases, of {TENANTS} at work that have the whole GPU",
        is_ratio=True,
        least=LEAST_OF_LEASES,
        most=1.01,
    )
    yield Row(
        name="system_vs_counter",
        value=parts.get(SYSTEM, 0.0) / counter,
        is_ratio=True,
        most=1 - LEAST_OF_LEASES,
    )
    balance = balance_of(of_leases)
    yield Row(
        name="least_lease_vs_most",
        value=balance,
        says="both do the same" if balance is not None else "n/a: not both are charged",
        is_ratio=True,
        least=LEAST_BALANCE,
    )


def balance_of(of_leases: Sequence[float]) -> float | None:
    """The joules of the lease with the least over those of the one with the most; None
    where not all tenants are charged.
    """
    is_whole = len(of_leases) == TENANTS and max(of_leases) > 0
    return min(of_leases) / max(of_leases) if is_whole else None
