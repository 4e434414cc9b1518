"""One, two and four tenants on a GPU, training and multiplying, beside one that has the
GPU without us.

Every tenant keeps the GPU fed and does the same steps, so the load per tenant is equal;
the peer is one process without a lease, in the same run. ``aggregate`` is all tenants'
steps per second over the peer's, ``each`` the slowest tenant's.
Public figures to stand beside: two models on a GPU kept 0.445 to 0.728 of a dedicated
one under HAMi and 0.604 to 0.879
under MPS v3 (ai-dynamo/dynamo); caps of 30 and 70 % gave 21.4 and 25.2 it/s
(Project-HAMi/HAMi-core#314).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from statistics import median
from typing import Any

from jupyter_aistack.exceptions import AIStackError
from tests.benchmarks.gpu.bench import (
    Bench,
    Row,
    WorkFailed,
    broker,
    environment,
    gpus,
    is_held,
    leased,
    level_of,
    modes,
)
from tests.benchmarks.gpu.workers import Worker, all_at_once, worker

SECONDS = 80.0
WHAT = ("matmul", "train")
WHOLE = "1"
TENANTS = (1, 2, 4)
RUN_SECONDS, TURNS = 2.0, 3
ALONE = 0.99
"""A lease may cost a tenant that is alone 1 % at most."""
Speeds = dict[str, list[float]]
"""By workload, the steps per second of each tenant."""


def rows(bench: Bench) -> Iterator[Row]:
    dedicated: Speeds = {}
    try:
        yield from alone(bench, dedicated)
    except (WorkFailed, AIStackError) as error:
        yield Row(name="alone", says=f"failed: {error}")
        return  # there is nothing to stand beside
    seen: set[str] = set()
    for name, settings in modes():
        yield from of_mode(bench, name, settings, dedicated, seen)


def alone(bench: Bench, dedicated: Speeds) -> Iterator[Row]:
    """A tenant that leases the whole GPU, alone, in turns with one without a lease,
    whose speeds `dedicated` gets.

    The one without starts later: what it holds would else be a stranger's, and the GPU
        not whole.
    """
    with broker() as made, leased(made, WHOLE) as (_, prepared), ExitStack() as stack:
        ours, peer = (
            stack.enter_context(worker(bench, given))
            for given in (environment(prepared), environment())
        )
        results: list[Speeds] = [
            speeds(bench, [each])
            for _ in range(bench.pick(TURNS, 1))
            for each in (ours, peer)
        ]
    for what in WHAT:
        dedicated[what] = [median(each[what][0] for each in results[1::2])]
        yield Row(name=f"dedicated.{what}_steps_per_second", value=dedicated[what][0])
        ratio = median(
            a[what][0] / b[what][0]
            for a, b in zip(results[::2], results[1::2], strict=True)
        )
        yield Row(
            name=f"alone.{what}_vs_dedicated", value=ratio, is_ratio=True, least=ALONE
        )


def of_mode(
    bench: Bench, name: str, settings: dict[str, Any], dedicated: Speeds, seen: set[str]
) -> Iterator[Row]:
    """All numbers of tenants at the level that these settings reach, and shares of
    unequal size where it holds any.
    """
    with broker(**settings) as made:
        if not gpus(made):
            yield Row(name=name, says="no GPU here can be shared")
            return
        for tenants in TENANTS:
            if not bench.affords(20):
                yield Row(
                    name=f"{name}.{tenants}", says="left out: the section's time is up"
                )
                continue
            try:
                level, result = together(
                    bench, made, name, [Fraction(1, max(2, tenants))] * tenants, seen
                )
            except (WorkFailed, AIStackError) as error:
                yield Row(name=f"{name}.{tenants}", says=f"failed: {error}")
                continue
            if result:
                yield from compared(level, dedicated, result)
        if not any(map(is_held, seen)) or not bench.affords(20):
            return
        try:
            level, result = together(
                bench, made, name, [Fraction(3, 10), Fraction(7, 10)], seen
            )
        except (WorkFailed, AIStackError) as error:
            yield Row(name=f"{name}.caps_30_70", says=f"failed: {error}")
            return
        yield from (separated(level, what, result[what]) for what in result)


def together(
    bench: Bench, made: Any, mode: str, shares: Sequence[Fraction], seen: set[str]
) -> tuple[str, Speeds]:
    """The level, and the speeds of tenants with these shares; none where that has been
    measured before.
    """
    with ExitStack() as stack:
        held = [stack.enter_context(leased(made, f"gpu:{share}")) for share in shares]
        level = level_of(held[0][1], mode)
        key = f"{level} {', '.join(map(str, shares))}"
        if key in seen:
            return level, {}
        seen.update({key, level})
        return level, speeds(
            bench,
            [
                stack.enter_context(worker(bench, environment(given)))
                for _, given in held
            ],
        )


def speeds(bench: Bench, workers: Sequence[Worker]) -> Speeds:
    """Steps per second of each, all working at once; a first short run warms up and
    does not count.
    """
    result: Speeds = {}
    for what in WHAT:
        all_at_once(workers, "run", what=what, seconds=0.1)
        text = all_at_once(
            workers, "run", what=what, seconds=bench.pick(RUN_SECONDS, 0.1)
        )
        result[what] = [each["done"] / each["seconds"] for each in text]
    return result


def compared(level: str, dedicated: Speeds, result: Speeds) -> Iterator[Row]:
    """All tenants together, and the slowest of them, over the peer."""
    for what, each in result.items():
        peer = dedicated[what][0]
        name = f"{level}.{len(each)}_tenants.{what}"
        yield Row(
            name=f"{name}.aggregate_vs_dedicated", value=sum(each) / peer, is_ratio=True
        )
        yield Row(
            name=f"{name}.slowest_vs_dedicated", value=min(each) / peer, is_ratio=True
        )


def separated(level: str, what: str, result: Sequence[float]) -> Row:
    """How near the speeds of shares of 30 and 70 % come to 3 : 7; 1 is exact."""
    small, large = result
    ratio = (small / large) / (3 / 7)
    says = f"{small:.1f} and {large:.1f} steps per second"
    return Row(
        name=f"{level}.caps_30_70.{what}_vs_asked",
        value=ratio,
        says=says,
        is_ratio=True,
        least=0.95,
        most=1.05,
    )
