"""Is a share given as much memory as was asked for? What can really be allocated, at
each level that is reached.

``driver`` is what the driver itself gives, which holds whatever a process does;
``torch`` is what torch's pool gets under the caps of the lease. At L0 nothing but those
caps holds, so there the driver's figure has no goal. Public figures to stand beside
(MPS v3, ai-dynamo/dynamo): 10 GiB gave 9,728 MiB, 5 GiB gave 4,864 MiB: 0.95 of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from jupyter_aistack.broker.broker import Broker
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
from tests.benchmarks.gpu.units import MIB
from tests.benchmarks.gpu.workers import worker

SECONDS = 35.0
SPECS = ("5GiB", "10GiB", "gpu:1/4")
LEAST, MOST = 0.90, 1.0
"""Of what was asked for. Below: users get less than they were told; above: neighbours
do.
"""


def rows(bench: Bench) -> Iterator[Row]:
    seen: set[str] = set()
    for name, settings in modes():
        with broker(**settings) as made:
            if not gpus(made):
                yield Row(name=name, says="no GPU here can be shared")
                return
            for spec in SPECS:
                if not bench.affords(12):
                    yield Row(
                        name=f"{name}.{spec}", says="left out: the section's time is up"
                    )
                    continue
                try:
                    yield from of_lease(bench, made, name, spec, seen)
                except (WorkFailed, AIStackError) as error:
                    yield Row(name=f"{name}.{spec}", says=f"failed: {error}")


def of_lease(
    bench: Bench, made: Broker, mode: str, spec: str, seen: set[str]
) -> Iterator[Row]:
    """One lease; nothing where another mode came to the same level.

    Raises:
        AIStackError: it cannot be had.
        WorkFailed: its process can do nothing with it.
    """
    with leased(made, spec) as (lease, prepared):
        level = level_of(prepared, mode)
        if f"{level}.{spec}" in seen:
            return
        seen.add(f"{level}.{spec}")
        asked = sum(slice_.memory_bytes for slice_ in lease.slices)
        result = allocatable(bench, environment(prepared), asked)
    yield from compared(level, spec, asked, result)


def allocatable(bench: Bench, given: dict[str, str], asked: int) -> dict[str, int]:
    """Bytes that a process with this environment gets, by who gives them: one process,
    as most of its time is the import of torch. The driver is asked first, while torch
    holds nothing.
    """
    most = bench.pick(4 * asked, 64 * MIB)
    ways = bench.pick(("driver", "torch"), ("memory", "torch"))
    with worker(bench, given) as child:
        return {
            how: int(child.ask("fill", how=how, most=most)["bytes"]) for how in ways
        }


def compared(
    level: str, spec: str, asked: int, result: dict[str, int]
) -> Iterator[Row]:
    """What was found over what was asked for."""
    for how, got in result.items():
        has_goal = how == "torch" or is_held(level)
        says = f"{got / MIB:,.0f} of {asked / MIB:,.0f} MiB" + (
            "" if has_goal else "; advisory: nothing holds it"
        )
        goal = {"least": LEAST, "most": MOST} if has_goal else {}
        yield Row(
            name=f"{level}.{spec}.{how}_vs_asked",
            value=got / asked,
            says=says,
            is_ratio=True,
            **goal,
        )
