"""Ending a tenant in the middle of its work: how long until its memory is back, and
what its neighbour notices.

The tenant works without a pause and is ended as the package ends a holder: its server
is told first where it has one (a client of MPS that is killed at work may take its
neighbours along), then the process gets SIGTERM, then SIGKILL.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psutil

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.exceptions import AIStackError
from tests.benchmarks.gpu.bench import (
    MIB,
    Bench,
    Row,
    broker,
    environment,
    gpus,
    leased,
    used_bytes,
)
from tests.benchmarks.gpu.workers import Worker, worker

SECONDS = 35.0
TURNS, WINDOW_SECONDS, TERM_SECONDS, BACK_SECONDS = 3, 1.5, 2.0, 10.0
SPARE_BYTES = 64 * MIB
"""What the neighbour may have taken meanwhile."""
KEPT = 0.95
"""Of its speed the neighbour must have at least, once it is alone; it may have more."""


def rows(bench: Bench) -> Iterator[Row]:
    with broker() as made:
        if not gpus(made):
            yield Row(name="teardown", says="no GPU here can be shared")
            return
        with (
            leased(made, "gpu:1/2") as (_, prepared),
            worker(bench, environment(prepared)) as neighbour,
        ):
            neighbour.ask("burn", what="train")
            results = [
                one_turn(bench, made, neighbour)
                for _ in range(bench.pick(TURNS, 1))
                if bench.affords(12)
            ]
            neighbour.ask("rest")
        yield from in_short(prepared.enforced_by.value, results, faults_of(made))


def one_turn(bench: Bench, made: Broker, neighbour: Worker) -> tuple[float, float]:
    """Seconds until the ended tenant's memory was back, and the neighbour's speed after
    over its speed before.
    """
    window, free = bench.pick(WINDOW_SECONDS, 0.1), used_bytes(bench.device) or 0
    with (
        leased(made, "gpu:1/2") as (lease, prepared),
        worker(bench, environment(prepared)) as tenant,
    ):
        tenant.ask("burn", what="matmul")
        before = speed(neighbour, window)
        begin = time.monotonic()
        end(made, lease, tenant)
        while (
            used_bytes(bench.device) or 0
        ) > free + SPARE_BYTES and time.monotonic() - begin < BACK_SECONDS:
            time.sleep(0.02)
        seconds = time.monotonic() - begin
    return seconds, speed(neighbour, window) / before


def end(made: Broker, lease: Lease, tenant: Worker) -> None:
    """End it: through its server where there is one, then by signals."""
    terminate: Any = getattr(made, "terminate", None)
    if terminate is not None:
        with contextlib.suppress(AIStackError):  # it is no client of a server
            terminate(lease, tenant.pid)
    process = psutil.Process(tenant.pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
    try:
        tenant.process.wait(TERM_SECONDS)
    except subprocess.TimeoutExpired:
        tenant.process.kill()
        tenant.process.wait()


def speed(neighbour: Worker, seconds: float) -> float:
    """Its steps per second, over so long."""
    first, begin = float(neighbour.ask("count")["done"]), time.monotonic()
    time.sleep(seconds)
    return max(
        1e-9,
        (float(neighbour.ask("count")["done"]) - first) / (time.monotonic() - begin),
    )


def faults_of(made: Broker) -> int | None:
    """How many faults the devices' servers have told of; None where no server would."""
    tell: Any = getattr(made, "faults", None)
    return None if tell is None else len(tell())


def in_short(
    level: str, items: list[tuple[float, float]], faults: int | None
) -> Iterator[Row]:
    """The slowest way back and the worst that the neighbour noticed."""
    if not items:
        yield Row(name=level, says="left out: the section's time is up")
        return
    yield Row(
        name=f"{level}.memory_back_seconds",
        value=max(seconds for seconds, _ in items),
        most=BACK_SECONDS / 2,
    )
    kept = min(ratio for _, ratio in items)
    yield Row(
        name=f"{level}.neighbour_after_vs_before", value=kept, is_ratio=True, least=KEPT
    )
    says = "" if faults is not None else "n/a: this version does not tell"
    yield Row(
        name=f"{level}.faults",
        value=None if faults is None else float(faults),
        says=says,
        most=0.0,
    )
