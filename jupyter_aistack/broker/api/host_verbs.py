"""Verbs about the host: its devices, what is in use, what happened."""

from __future__ import annotations

from collections.abc import Mapping

from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.scheduling.admission import problems
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.records import USE
from jupyter_aistack.core.wire.values import (
    host_to_dict,
    integer_field,
    reservation_to_dict,
)
from jupyter_aistack.core.wire.visibility import Visibility

from .base import Payload, Verb, VerbGroup
from .caller import Caller


class HostVerbs(VerbGroup):
    """``host``, ``usage``, ``events`` and ``reservations``: they change nothing."""

    def verbs(self) -> dict[str, Verb]:
        return {
            "host": self._host,
            "events": self._events,
            "usage": self._usage,
            "reservations": self._reservations,
        }

    def _host(self, payload: Payload, caller: Caller) -> JSON:
        broker = self._broker
        inventory = broker.marked_inventory()
        leases = broker.current_leases()
        policy_problems = problems(broker.policy, inventory)
        standing = self._access.standing(caller)
        return host_to_dict(
            inventory,
            leases,
            broker.policy.queues,
            standing=standing,
            reservations=broker.reservations(),
            problems=(*policy_problems, *broker.ledger.problems()),
            capability=broker.suspend_support.capability,
            now=broker.clock(),
        )

    def _events(self, payload: Payload, caller: Caller) -> JSON:
        after = integer_field({"after": 0, **payload}, "after")
        visibility = self._visibility(caller)
        own = set() if visibility.sees_names else self._seen_ids(visibility)
        events = self._broker.events(after)
        return {"events": [visibility.event(event, own) for event in events]}

    def _seen_ids(self, visibility: Visibility) -> set[str]:
        """Ids of all leases, and of their requests, that the caller sees the holders
        of.
        """
        seen: set[str] = set()
        for lease in self._broker.leases(live=False):
            if visibility.sees(lease.holder.user, lease.queue):
                seen |= {lease.id, lease.request_id}
        return seen

    def _usage(self, payload: Payload, caller: Caller) -> JSON:
        by_lease, by_device = self._broker.usage()
        return {
            "at": self._broker.clock(),
            "devices": _usage_to_dicts(by_device),
            "leases": _usage_to_dicts(by_lease),
        }

    def _reservations(self, payload: Payload, caller: Caller) -> JSON:
        now = self._broker.clock()
        reservations = self._broker.reservations()
        return {"reservations": [reservation_to_dict(r, now) for r in reservations]}


def _usage_to_dicts(usage: Mapping[str, Usage]) -> dict[str, JSON]:
    return {name: USE.to_dict(use) for name, use in usage.items()}
