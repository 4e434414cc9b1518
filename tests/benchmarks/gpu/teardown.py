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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.exceptions import AIStackError
from tests.benchmarks.gpu.bench import (
    Bench,
    Row,
    broker,
    by_mode,
    environment,
    gpus,
    leased,
    used_bytes,
)
from tests.benchmarks.gpu.units import MIB
from tests.benchmarks.gpu.workers import Worker, worker

SECONDS = 30.0
TURNS, WINDOW_SECONDS, TERM_SECONDS, BACK_SECONDS = 3, 1.5, 2.0, 10.0
SPARE_BYTES = 64 * MIB
"""What the neighbour may have taken meanwhile."""
KEPT = 0.95
"""Of its speed alone before a tenant came, the neighbour must have so much again once
that is gone. Beside the tenant it is slower, which says nothing of how that ended.
"""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One tenant that came and was ended.

    Attributes:
        seconds: until its memory was back.
        alone: the neighbour's steps per second before it came.
        beside: the neighbour's beside it.
        after: the neighbour's once it was gone.
    """

    seconds: float
    alone: float
    beside: float
    after: float


def rows(bench: Bench) -> Iterator[Row]:
    def measure(mode: str, settings: dict[str, Any]) -> Iterator[Row]:
        with broker(**settings) as made:
            if not gpus(made):
                yield Row(name="teardown", says="no GPU here can be shared")
                return
            yield from beside_a_neighbour(bench, made)

    yield from by_mode(measure)


def beside_a_neighbour(bench: Bench, made: Broker) -> Iterator[Row]:
    """All turns beside one neighbour, each told when it is done."""
    turns: list[Turn] = []
    with (
        leased(made, "gpu:1/2") as (_, prepared),
        worker(bench, environment(prepared)) as neighbour,
    ):
        level = prepared.enforced_by.value
        neighbour.ask("burn", what="train")
        speed(neighbour, bench.pick(WINDOW_SECONDS, 0.1))  # its start does not count
        for number in range(bench.pick(TURNS, 1)):
            if not bench.affords(10):
                break
            turns.append(one_turn(bench, made, neighbour))
            says = f"the neighbour keeps {turns[-1].beside / turns[-1].alone:.2f} beside it"
            yield Row(
                name=f"{level}.turn{number}_seconds",
                value=turns[-1].seconds,
                says=says,
            )
        neighbour.ask("rest")
    yield from in_short(level, turns, faults_of(made))


def one_turn(bench: Bench, made: Broker, neighbour: Worker) -> Turn:
    """The neighbour alone, beside a tenant, and alone again."""
    window, free = bench.pick(WINDOW_SECONDS, 0.1), used_bytes(bench.device) or 0
    alone = speed(neighbour, window)
    with (
        leased(made, "gpu:1/2") as (lease, prepared),
        worker(bench, environment(prepared)) as tenant,
    ):
        tenant.ask("burn", what="matmul")
        beside = speed(neighbour, window)
        begin = time.monotonic()
        end(made, lease, tenant)
        while (
            used_bytes(bench.device) or 0
        ) > free + SPARE_BYTES and time.monotonic() - begin < BACK_SECONDS:
            time.sleep(0.02)
        seconds = time.monotonic() - begin
    after = speed(neighbour, window)
    return Turn(seconds=seconds, alone=alone, beside=beside, after=after)


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


def in_short(level: str, turns: Sequence[Turn], faults: int | None) -> Iterator[Row]:
    """The slowest way back and the worst that the neighbour noticed."""
    if not turns:
        yield Row(name=level, says="left out: the section's time is up")
        return
    yield Row(
        name=f"{level}.memory_back_seconds",
        value=max(turn.seconds for turn in turns),
        most=BACK_SECONDS / 2,
    )
    kept = min(turn.after / turn.alone for turn in turns)
    yield Row(
        name=f"{level}.neighbour_after_vs_alone", value=kept, is_ratio=True, least=KEPT
    )
    yield Row(
        name=f"{level}.neighbour_beside_vs_alone",
        value=min(turn.beside / turn.alone for turn in turns),
        is_ratio=True,
    )
    says = "" if faults is not None else "n/a: this version does not tell"
    yield Row(
        name=f"{level}.faults",
        value=None if faults is None else float(faults),
        says=says,
        most=0.0,
    )
