"""Up to a thousand grants, each checked as the package does it and once more from outside the
package.

A grant is *silently unlimited* when it is said to be held by the driver, the package's
own check found nothing wrong, and yet the driver gave its process more than its share.
There must be none. Each grant starts two processes with CUDA, so how many there are is
up to the time: with none among n, at most 3/n of all are so, in 95 of 100 runs.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Enforcement
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.verify.child import verify
from tests.benchmarks.gpu.bench import (
    Bench,
    Row,
    WorkFailed,
    broker,
    environment,
    gpus,
    is_held,
    leased,
)
from tests.benchmarks.gpu.units import MIB
from tests.benchmarks.gpu.workers import worker

SECONDS = 55.0
GRANTS, PARALLEL = 1000, 16
LEAST_GRANTS = 300
"""With none among so many, at most 1 % can be."""
TOLD_EACH = 100
"""Grants between two words of how far it is."""
RULE_OF_THREE = 3.0
SPEC = "gpu:1/16"
BEYOND = 1.10
"""A limit that lets through a tenth more than the share is none."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One grant: what is said to hold it, what the package's check said, what the
    driver really did.
    """

    enforced_by: Enforcement
    verified: bool | None
    gave_too_much: bool | None

    @property
    def kind(self) -> str:
        if not is_held(self.enforced_by):
            return "advisory"
        if self.gave_too_much is None:
            return "unknown"
        if not self.gave_too_much:
            return "limited"
        return "unlimited_but_found" if self.verified is False else "silent_unlimited"


def rows(bench: Bench) -> Iterator[Row]:
    wanted = bench.pick(GRANTS, 8)
    failures: Counter[str] = Counter()
    checked: list[Checked] = []
    with broker() as made:
        if not gpus(made):
            yield Row(name="grants", says="no GPU here can be shared")
            return
        parallel = min(PARALLEL, os.cpu_count() or 1)
        with ThreadPoolExecutor(parallel) as pool:
            asked = [pool.submit(one_grant, bench, made) for _ in range(wanted)]
            for number, done in enumerate(as_completed(asked), 1):
                result = None
                try:
                    result = done.result()
                    checked += [result] if result is not None else []
                except (AIStackError, WorkFailed) as error:
                    failures[str(error)] += 1
                if number % TOLD_EACH == 0 and result is not None:
                    yield so_far(checked, failures)
    yield from counted(checked, wanted, failures)


def so_far(checked: Sequence[Checked], failures: Counter[str]) -> Row:
    """How far it is: a section that is cut has told this much."""
    silent = sum(each.kind == "silent_unlimited" for each in checked)
    says = f"{silent} silently unlimited, {failures.total()} failed"
    return Row(name=f"after_{len(checked)}", says=says)


def one_grant(bench: Bench, made: Broker) -> Checked | None:
    """One grant from request to release; None when the time is up."""
    if not bench.affords(5):
        return None
    with leased(made, SPEC) as (lease, prepared):
        given = environment(prepared)
        verified = checked_by_us(made, lease, prepared, given)
        too_much = (
            int(BEYOND * sum(slice_.memory_bytes for slice_ in lease.slices))
            // MIB
            * MIB
        )
        gave = None
        if bench.device == "cuda" and is_held(prepared.enforced_by):
            with worker(bench, given) as child:
                gave = bool(child.ask("probe", too_much=too_much)["gave_too_much"])
        return Checked(
            enforced_by=prepared.enforced_by, verified=verified, gave_too_much=gave
        )


def checked_by_us(
    made: Any, lease: Lease, prepared: Preparation, given: Mapping[str, str]
) -> bool | None:
    """What the package's own check says, with the server's list of clients where this
    version looks at that too.
    """
    more: dict[str, Any] = {}
    if "is_client" in inspect.signature(verify).parameters and hasattr(made, "clients"):

        def is_client(pid: int) -> bool | None:
            known = made.clients(lease)
            return None if known is None else pid in known

        more["is_client"] = is_client
    verified, _ = verify(
        prepared.expects, interpreter=sys.executable, environment=given, **more
    )
    return verified


def counted(
    checked: list[Checked], wanted: int, failures: Counter[str]
) -> Iterator[Row]:
    """How many there were of each kind."""
    kinds = Counter(each.kind for each in checked)
    says = (
        ""
        if len(checked) == wanted
        else f"of {wanted}: the time was up, or they failed"
    )
    least = float(min(wanted, LEAST_GRANTS))
    yield Row(name="grants", value=float(len(checked)), says=says, least=least)
    is_judged = (
        kinds["limited"] + kinds["silent_unlimited"] + kinds["unlimited_but_found"] > 0
    )
    why = (
        "whether the driver limits them could not be asked"
        if kinds["unknown"]
        else "the driver is said to hold none"
    )
    yield Row(
        name="silent_unlimited",
        value=float(kinds["silent_unlimited"]) if is_judged else None,
        says="" if is_judged else f"n/a: {why}",
        most=0.0,
    )
    judged = len(checked) - kinds["unknown"] - kinds["advisory"]
    if judged and not kinds["silent_unlimited"]:
        at_most = min(1.0, RULE_OF_THREE / judged)
        yield Row(
            name="silent_unlimited_at_most",
            value=at_most,
            says=f"share of all grants, by {judged} without any",
        )
    for kind in ("limited", "unlimited_but_found", "advisory", "unknown"):
        yield Row(name=kind, value=float(kinds[kind]))
    yield Row(
        name="check_said_wrong",
        value=float(sum(each.verified is False for each in checked)),
    )
    yield Row(
        name="check_could_not_tell",
        value=float(sum(each.verified is None for each in checked)),
    )
    yield from (
        Row(name="failed", value=float(times), says=why)
        for why, times in failures.most_common(3)
    )
