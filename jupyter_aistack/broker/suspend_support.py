"""Whether this host can suspend kernels, and how much memory it has for that."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jupyter_aistack.core.model.device import SliceKind
from jupyter_aistack.core.model.device_state import StatePhase, SuspendMethod
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.suspend.capability import (
    BY_SERVERS_ALONE,
    SWITCHED_OFF,
    SuspendCapability,
)
from jupyter_aistack.core.suspend.model import host_capacity
from jupyter_aistack.system.memory import available_bytes

from .host_state import HostState

NO_BOUND = 2**60
"""Bytes of host memory where suspended state takes none: on simulated devices."""


class SuspendSupport:
    """The one place that knows how well this host can suspend.

    Args:
        host_state: knows whether the devices are simulated.
        policy: when idle kernels are suspended; None for never.
        capability: how well the host can suspend, as far as it is known.
        host_memory: bytes of the host's memory that could be used now; None for what
            the system says, or for no bound where devices are simulated.

    Attributes:
        policy: as given.
    """

    def __init__(
        self,
        host_state: HostState,
        *,
        policy: SuspendPolicy | None,
        capability: SuspendCapability,
        host_memory: Callable[[], int] | None,
    ) -> None:
        self.policy = policy
        self._host_state = host_state
        self._capability = capability
        self._host_memory = host_memory or self._available_bytes

    @property
    def capability(self) -> SuspendCapability:
        """How well the host can suspend, by the latest that is known."""
        # Of a broker that suspends nothing no setting is to be asked for.
        is_settled = self._capability == BY_SERVERS_ALONE
        return self._capability if self.policy or is_settled else SWITCHED_OFF

    def update(self, capability: SuspendCapability) -> None:
        """Set what has been learned about the host. Any thread may call it: plans made
        from then on follow it.
        """
        self._capability = capability

    def policy_in_force(self) -> SuspendPolicy | None:
        """The policy that plans follow; None while nothing can be suspended here."""
        if self.policy is None or self.capability.why_not:
            return None
        return self.capability.measured(self.policy)

    def capacity_bytes(self, leases: Iterable[Lease]) -> int:
        """Most of the host's memory that suspended state may take.

        What suspended state takes now is not available, but counts.
        """
        with_state = [lease for lease in leases if lease.residence is not None]
        if self.policy is None and not with_state:
            return 0

        suspended = sum(map(suspended_bytes, with_state))
        share = (self.policy or SuspendPolicy()).host_share
        free = host_capacity(
            self._host_memory(), suspended_bytes=suspended, share=share
        )
        return suspended + free

    def _available_bytes(self) -> int:
        is_simulated = self._host_state.inventory().is_simulated
        host_bytes = None if self.policy is None else self.policy.host_bytes
        return NO_BOUND if is_simulated else available_bytes(host_bytes)


def suspended_bytes(lease: Lease) -> int:
    """Host memory that the state of a lease takes, as far as it is there for sure."""
    state = lease.residence
    if state is None or state.tier is SuspendMethod.SIMULATED:
        return 0
    if state.phase not in (StatePhase.PARKED, StatePhase.RESTORING):
        return 0
    gpus = sum(slice_.kind is not SliceKind.CPU for slice_ in lease.slices)
    return (state.state_bytes or 0) * gpus
