"""Has what holds the leases follow their limits: lowered before others are granted what
they leave, raised after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from jupyter_aistack.core.enforcement.limit_effect import LimitEffect, pending_update
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.limit import Limits
from jupyter_aistack.core.model.plan import Plan, SetLimits
from jupyter_aistack.core.scheduling.lease_limits import is_lowered
from jupyter_aistack.exceptions import AIStackError, ProviderError

from .host_state import HostState

_UNTOUCHED = frozenset({LeaseState.GRANTED, LeaseState.RELEASING})
"""What is not in use yet is made ready with its limits; what is being torn down is left
alone."""

Pids = Callable[[Iterable[Lease]], Mapping[str, frozenset[int]]]


class LimitEnforcer:
    """Applies limits to the devices of this host.

    Who writes limits down applies them; every other broker of the host does so as well,
    as what holds a lease may be in the hands of its own user alone. The second time
    changes nothing.

    Args:
        host_state: the devices, and where it is said when a limit takes effect later.
        pids: gives each lease's processes.
    """

    def __init__(self, host_state: HostState, pids: Pids) -> None:
        self._host_state = host_state
        self._pids = pids
        self._applied: dict[str, Limits] = {}
        self._seen: set[str] = set()

    def started_with(self, lease: Lease) -> None:
        """A process is about to start with what a lease may use now."""
        if lease.limits:
            self._applied[lease.id] = lease.limits

    def lower(self, todo: Plan, leases: Iterable[Lease]) -> None:
        """Lower what a plan lowers, before it is written down: what it grants must be
        free by then. What fails is tried again by `settle`.
        """
        lowered = [
            lease
            for before, lease in _changed(todo, leases)
            if is_lowered(before, lease.limits)
        ]
        self._apply(lowered)

    def settle(self, todo: Plan, leases: Iterable[Lease]) -> None:
        """Hold every lease to its limits, as they are once a plan is written down: those
        that are lowered first.
        """
        after = {lease.id: lease for _, lease in _changed(todo, leases)}
        ended = todo.ended()
        held = [each for each in leases if each.limits and each.id not in ended]
        current = [after.get(lease.id, lease) for lease in held]
        live = {lease.id for lease in current}
        for lease_id in self._seen - live:
            self._applied.pop(lease_id, None)
        self._seen = live
        due = [
            lease for lease in current if self._applied.get(lease.id) != lease.limits
        ]
        due.sort(key=lambda lease: not self._falls(lease))
        self._apply(due)

    def _falls(self, lease: Lease) -> bool:
        return is_lowered(self._applied.get(lease.id, ()), lease.limits)

    def _apply(self, leases: Sequence[Lease]) -> None:
        used = [lease for lease in leases if lease.state not in _UNTOUCHED]
        if not used:
            return
        pids = self._pids(used)
        for lease in used:
            effect = self._effect(lease, pids.get(lease.id, frozenset()))
            if effect is LimitEffect.UNKNOWN:
                continue
            # How a lease that another broker has made ready was started is not known
            # here: whether it is to be started again is for that broker to say.
            is_known = lease.id in self._applied
            self._applied[lease.id] = lease.limits
            if is_known or effect is LimitEffect.NOW:
                self._say(lease, effect)

    def _effect(self, lease: Lease, pids: frozenset[int]) -> LimitEffect:
        try:
            return self._host_state.devices.adjust(lease, pids)
        except ProviderError:  # logged where providers are called
            return LimitEffect.UNKNOWN

    def _say(self, lease: Lease, effect: LimitEffect) -> None:
        """Write down when the limits take effect, where that is news."""
        now = self._host_state.now()
        update = pending_update(lease, effect, now)
        if update.apply(lease.conditions) == lease.conditions:
            return
        with contextlib.suppress(AIStackError):  # it has ended, or is said next time
            ledger = self._host_state.ledger
            ledger.bind(lease.id, lease.token, now, conditions=update)


def _changed(todo: Plan, leases: Iterable[Lease]) -> list[tuple[Limits, Lease]]:
    """The leases whose limits a plan sets, with what they were before."""
    by_id = {lease.id: lease for lease in leases}
    changed = []
    for action in todo.actions:
        if isinstance(action, SetLimits):
            before = by_id[action.lease_id]
            after = replace(before, limits=action.limits)
            changed.append((before.limits, after))
    return changed
