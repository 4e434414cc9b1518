"""What a broker works on: the ledger, the devices of its host, the policy and the
clock. The other parts of the broker read through it.
"""

from __future__ import annotations

from collections.abc import Callable

from jupyter_aistack.core.model.device import Fault, Inventory
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import Policy
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.ledger.base import Ledger, LedgerState

from .devices import DeviceManager


class HostState:
    """The state of one host, as far as it is written down or can be measured.

    Args:
        ledger: where everything is written down.
        devices: the devices of the host.
        policy: how slices are shared out.
        clock: seconds since the epoch.
        ttl_seconds: how long a lease lives without renewal.
    """

    def __init__(
        self,
        ledger: Ledger,
        devices: DeviceManager,
        policy: Policy,
        clock: Callable[[], float],
        ttl_seconds: float,
    ) -> None:
        self.ledger = ledger
        self.devices = devices
        self.policy = policy
        self.host = devices.host
        self.clock = clock
        self.ttl_seconds = ttl_seconds

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.clock()

    def read(self) -> LedgerState:
        """All that the ledger holds of this host and that a plan needs."""
        return self.ledger.read(self.host, self.now())

    def inventory(self) -> Inventory:
        """The devices of this host, at most two seconds old, with the memory of foreign
        processes marked.
        """
        return self.devices.inventory()

    def leases(self, *, live: bool = True) -> tuple[Lease, ...]:
        """This host's leases, newest first; with `live` only those that have not
        ended.
        """
        return self.ledger.leases(self.now(), host=self.host, live=live)

    def lease(self, lease_id: str) -> Lease:
        """A lease, live or ended. Raises `LeaseNotFound`."""
        return self.ledger.lease(lease_id, self.now())

    def request(self, request_id: str) -> Request:
        """A request, whatever its state. Raises `LeaseNotFound`."""
        return self.ledger.request(request_id)

    def faults(self) -> tuple[Fault, ...]:
        """The device faults that have not been cleared: each broke the work of all who
        share its device.
        """
        return self.devices.faults()
