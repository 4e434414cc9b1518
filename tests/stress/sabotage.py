"""Brokers that break the rules on purpose: the proof that the stress test would notice."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jupyter_aistack.broker import cycle
from jupyter_aistack.broker.liveness import HolderLiveness
from jupyter_aistack.core.model.plan import Plan, Snapshot
from jupyter_aistack.core.model.process import Liveness
from jupyter_aistack.core.model.request import Holder

DEATH_RATE = 0.05
"""So often a living holder is taken for dead."""


def grant_twice() -> None:
    """Plan as if nothing were held."""
    true_plan = cycle.plan

    def plan(snapshot: Snapshot, now: float, **options: Any) -> Plan:
        return true_plan(replace(snapshot, leases=()), now, **options)

    cycle.plan = plan


def free_the_living() -> None:
    """Take holders for dead now and then."""
    true_liveness = HolderLiveness.__call__

    def see(self: HolderLiveness, holder: Holder) -> Liveness:
        is_wrong = random.random() < DEATH_RATE
        return Liveness.GONE if is_wrong else true_liveness(self, holder)

    HolderLiveness.__call__ = see  # type: ignore[method-assign]


def keep_the_dead() -> None:
    """Take all holders for living."""

    def see(self: HolderLiveness, holder: Holder) -> Liveness:
        return Liveness.ALIVE

    HolderLiveness.__call__ = see  # type: ignore[method-assign]


SABOTAGES: dict[str, Callable[[], None]] = {
    "grant-twice": grant_twice,
    "free-the-living": free_the_living,
    "keep-the-dead": keep_the_dead,
}
