"""Does the energy that is accounted add up to the device's own counter?

The counter is read before and after a load of two tenants. Beside it stand the power
that was drawn, summed up over the same time, and what the accounts give to leases and
to the system, where they keep any. A read must be cheap.
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
from tests.benchmarks.gpu.bench import Bench, Row, broker, environment, gpus, leased
from tests.benchmarks.gpu.workers import all_at_once, worker

SECONDS = 25.0
LOAD_SECONDS, LOOK_SECONDS = 12.0, 0.1
DRY_WATTS = 400.0
Sample = tuple[float, float, float]
"""Seconds, watts, and the counter in joules."""
Parts = Mapping[str, float]
"""Joules by whom they are charged to."""


def rows(bench: Bench) -> Iterator[Row]:
    tick(bench)
    with broker() as made:
        devices = gpus(made)
        if not devices:
            yield Row(name="energy", says="no GPU here can be shared")
            return
        samples, reads, parts = under_load(bench, made, devices[0])
    yield Row(name="read_ms", value=1000 * median(reads), most=10.0)
    yield from summed(samples)
    yield from accounted(samples, parts)


def under_load(
    bench: Bench, made: Broker, device: Device
) -> tuple[list[Sample], list[float], Parts | None]:
    """Samples of the device while two tenants work, how long each took to read, and
    what the accounts say of it.
    """
    with ExitStack() as stack:
        held = [stack.enter_context(leased(made, "gpu:1/2")) for _ in range(2)]
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
            parts[charge.lease_id or "system"] += charge.millijoules / 1000
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
            says="n/a: this GPU has no energy counter, or it did not move",
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
        yield Row(
            name="accounts_vs_counter",
            says="n/a: this version keeps no accounts of energy",
        )
        return
    says = f"{len(parts)} parts"
    total = sum(parts.values())
    yield Row(
        name="accounts_vs_counter",
        value=total / counter,
        says=says,
        is_ratio=True,
        least=0.99,
        most=1.01,
    )
