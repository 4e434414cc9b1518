"""Verbs about the host: its devices, what is in use, what happened."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from jupyter_aistack.broker.hosts import HostOverview, Hosts
from jupyter_aistack.core.model.host import ReportedDevice
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.scheduling.admission import problems
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.records import REPORTED_DEVICE, USE
from jupyter_aistack.core.wire.values import (
    host_to_dict,
    integer_field,
    reservation_to_dict,
)
from jupyter_aistack.core.wire.visibility import Visibility

from ..broker import Broker
from ..neighbours import Neighbours
from .base import Payload, Verb, VerbGroup
from .caller import Access, Caller

MAX_EVENTS = 1000
"""How many events one answer holds."""
MAX_SHOWN = 1000
"""Requests of each of all hosts that are shown, those that came first."""


class HostVerbs(VerbGroup):
    """``host``, ``hosts``, ``usage``, ``events`` and ``reservations``: they change nothing.

    Args:
        broker: what answers.
        access: what callers may see and change.
        neighbours: looks for others who use this host without its broker.
    """

    def __init__(
        self, broker: Broker, access: Access, neighbours: Neighbours | None = None
    ) -> None:
        super().__init__(broker, access)
        self._neighbours = neighbours

    def verbs(self) -> dict[str, Verb]:
        return {
            "host": self._host,
            "hosts": self._hosts,
            "events": self._events,
            "usage": self._usage,
            "reservations": self._reservations,
        }

    def _host(self, payload: Payload, caller: Caller) -> JSON:
        broker = self._broker
        inventory = broker.drains.inventory()
        leases = broker.current_leases()
        visibility = self._visibility(caller)
        policy_problems = problems(broker.host_state.policy, inventory)
        standing = self._access.standing(caller)
        return host_to_dict(
            inventory,
            leases,
            broker.host_state.policy.queues,
            standing=standing,
            reservations=broker.reservations(),
            strays=[visibility.stray(stray) for stray in broker.strays.current()],
            problems=(
                *policy_problems,
                *broker.ledger.problems(),
                *(self._neighbours.problems() if self._neighbours else ()),
            ),
            capability=broker.suspend_support.capability,
            now=broker.clock(),
            other_hosts=broker.host_state.other_hosts,
        )

    def _hosts(self, payload: Payload, caller: Caller) -> JSON:
        visibility = self._visibility(caller)
        overviews = Hosts(self._broker.host_state).overviews()
        return {
            "at": self._broker.clock(),
            "hosts": [_overview_to_dict(each, visibility) for each in overviews],
        }

    def _events(self, payload: Payload, caller: Caller) -> JSON:
        after = integer_field({"after": 0, **payload}, "after")
        visibility = self._visibility(caller)
        own = set() if visibility.sees_names else self._seen_ids(visibility)
        limit = integer_field(
            {"limit": MAX_EVENTS, **payload}, "limit", most=MAX_EVENTS
        )
        events = self._broker.events(after, limit)
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


def _overview_to_dict(overview: HostOverview, visibility: Visibility) -> JSON:
    """A host of those that share the ledger, with as much of its leases and requests as
    a caller may see.
    """
    return {
        "id": overview.id,
        "name": overview.name,
        "is_here": overview.is_here,
        "is_heard": overview.is_heard,
        "seen_at": overview.seen_at,
        "devices": [
            _reported_to_dict(device, overview.free_share(device))
            for device in overview.devices
        ],
        "leases": [visibility.lease(lease) for lease in overview.leases],
        "queue": [visibility.request(each) for each in overview.requests[:MAX_SHOWN]],
    }


def _reported_to_dict(device: ReportedDevice, free: Fraction | None) -> JSON:
    shown = None if free is None else str(free)
    return {**REPORTED_DEVICE.to_dict(device), "free_fraction": shown}


def _usage_to_dicts(usage: Mapping[str, Usage]) -> dict[str, JSON]:
    return {name: USE.to_dict(use) for name, use in usage.items()}
