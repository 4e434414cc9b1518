"""The verbs of the host's broker, for a Jupyter server that passes calls on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from jupyter_aistack.core.accounting.usage_report import Rates
from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.wire.protocol import SpokenFor
from jupyter_aistack.core.wire.records import DEVICE, LEASE, QUEUE, REQUEST, USE
from jupyter_aistack.exceptions import LeaseNotFound
from jupyter_aistack.system.broker_socket import BrokerSocket

from ..api.caller import Caller
from ..api.figures import HostFigures
from ..charged_totals import ChargedTotals

JSON = dict[str, Any]


class VerbService(Protocol):
    """What answers the verbs; see :class:`jupyter_aistack.broker.api.service.Service`."""

    def call(self, verb: str, payload: Mapping[str, Any], caller: Caller) -> JSON:
        """Answer one call. Raises `AIStackError`."""

    def check_lease(self, verb: str, lease_id: str, caller: Caller) -> Lease:
        """A lease that a transport answers a verb about by itself, on which the caller
        may use that verb. Raises `LeaseNotFound` and `PermissionDenied`.
        """

    def figures(self, caller: Caller) -> HostFigures:
        """The host in objects, as this caller may see it."""

    def charged(self, caller: Caller) -> tuple[list[ChargedTotals], Rates]:
        """For counters: what this process has charged since it started, and the
        rates.
        """


class RemoteService:
    """Passes calls on to the host's broker, which decides who may what.

    Args:
        socket: the connections to it.
    """

    def __init__(self, socket: BrokerSocket) -> None:
        self._socket = socket

    def call(self, verb: str, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return self._socket.call(verb, payload, _spoken_for(caller))

    def check_lease(self, verb: str, lease_id: str, caller: Caller) -> Lease:
        """One of the live leases of this server's user; of others the transports of a
        server answer nothing.
        """
        for lease in self.call("kernel_leases", {}, caller)["leases"]:
            if lease["id"] == lease_id:
                return LEASE.from_dict(lease)
        raise LeaseNotFound(f"there is no lease {lease_id}", lease_id=lease_id)

    def figures(self, caller: Caller) -> HostFigures:
        """As the broker shows it to users: what drivers tell of a device's health is
        told by the broker's own metrics.
        """
        host = self.call("host", {}, caller)
        usage = self.call("usage", {}, caller)
        leases = self.call("leases", {}, caller)["leases"]
        waiting = self.call("queue", {}, caller)["queue"]
        return HostFigures(
            at=usage["at"],
            inventory=Inventory(
                host=host["host"],
                devices=tuple(map(DEVICE.from_dict, host["devices"])),
                problems=tuple(host["problems"]),
            ),
            queues=tuple(map(QUEUE.from_dict, host["queues"])),
            leases=tuple(map(LEASE.from_dict, leases)),
            requests=tuple(map(REQUEST.from_dict, waiting)),
            device_usage={i: USE.from_dict(u) for i, u in usage["devices"].items()},
            lease_usage={i: USE.from_dict(u) for i, u in usage["leases"].items()},
        )

    def charged(self, caller: Caller) -> tuple[list[ChargedTotals], Rates]:
        """Nothing: the broker charges."""
        return [], Rates()


def _spoken_for(caller: Caller) -> SpokenFor:
    return SpokenFor(
        pid=caller.pid,
        kernel_id=caller.kernel_id,
        kernel_pid=caller.kernel_pid,
        parent=caller.parent,
        label=caller.label,
    )
