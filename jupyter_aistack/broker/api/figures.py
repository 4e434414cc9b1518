"""The host in objects, for those who count rather than show: metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import Queue
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.model.stray import Stray
from jupyter_aistack.core.wire.visibility import Visibility

from ..broker import Broker


@dataclass(frozen=True, kw_only=True)
class HostFigures:
    """A host at one moment, as one caller may see it.

    Attributes:
        at: seconds since the epoch.
        inventory: its devices.
        queues: its queues.
        leases: its live leases.
        requests: those that wait.
        strays: who uses a device without a lease.
        device_usage: what is in use, by device id.
        lease_usage: what is in use, by lease id.
        refused: how often callers were refused what is not theirs to do, by verb.
    """

    at: float
    inventory: Inventory
    queues: tuple[Queue, ...] = ()
    leases: tuple[Lease, ...] = ()
    requests: tuple[Request, ...] = ()
    strays: tuple[Stray, ...] = ()
    device_usage: Mapping[str, Usage] = field(default_factory=dict)
    lease_usage: Mapping[str, Usage] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)


def figures_of(broker: Broker, visibility: Visibility) -> HostFigures:
    """The figures of a broker's host; use is at most two seconds old."""
    lease_usage, device_usage = broker.usage()
    leases = broker.current_leases()
    state = broker.host_state.read()
    gone = broker.processes.gone(state.requests)
    return HostFigures(
        at=broker.clock(),
        inventory=broker.drains.inventory(),
        queues=broker.host_state.policy.queues,
        leases=tuple(visibility.redacted(lease) for lease in leases),
        requests=tuple(each for each in state.requests if each.id not in gone),
        strays=tuple(visibility.seen_stray(stray) for stray in broker.strays.current()),
        device_usage=device_usage,
        lease_usage=lease_usage,
    )
