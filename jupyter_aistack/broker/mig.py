"""MIG instances for those who wait: what would be created, and creating it where the
administrator allows it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence

from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.placement.mig_plan import MIGPlan
from jupyter_aistack.core.scheduling.missing_profiles import missing_profiles
from jupyter_aistack.exceptions import ProviderError

from .devices import DeviceManager

log = logging.getLogger("jupyter_aistack")

RETRY_SECONDS = 60.0
"""How long nothing is tried after a step has failed: the same would fail again, and
each try disturbs the driver.
"""


class MIGReconfigurer:
    """Cuts the GPUs of a host for waiting requests.

    Args:
        devices: the host's devices.
        clock: seconds since the epoch.
    """

    def __init__(self, devices: DeviceManager, clock: Callable[[], float]) -> None:
        self._devices = devices
        self._clock = clock
        self._failed_at = -math.inf

    @property
    def is_allowed(self) -> bool:
        """Whether anything may be created for those who wait."""
        return any(device.mig_offers for device in self._devices.inventory().devices)

    def plan(self, snapshot: Snapshot, profiles: Sequence[str] = ()) -> MIGPlan:
        """What would be done for `profiles`, or for those who wait. Raises
        `ProviderError`.
        """
        wanted = tuple(profiles) or missing_profiles(snapshot, self._clock())
        if not wanted:
            return MIGPlan()
        leased = _leased(snapshot.leases)
        return self._devices.plan_room(wanted, leased, _drained(snapshot))

    def make(self, snapshot: Snapshot, profiles: Sequence[str] = ()) -> tuple[str, ...]:
        """Create the instances; what was done, one phrase per step. Raises `Refused`
        and `ProviderError`.
        """
        wanted = tuple(profiles) or missing_profiles(snapshot, self._clock())
        if not wanted:
            return ()
        leased = _leased(snapshot.leases)
        return self._devices.make_room(wanted, leased, _drained(snapshot))

    def serve(self, snapshot: Callable[[], Snapshot]) -> bool:
        """Create what those who wait lack, where that is allowed; whether anything
        changed.

        A step that fails is logged, and not tried again for a minute.
        """
        if not self.is_allowed or 0 <= self._clock() - self._failed_at < RETRY_SECONDS:
            return False
        try:
            return bool(self.make(snapshot()))
        except ProviderError as error:
            self._failed_at = self._clock()
            log.warning(
                "no MIG instance was created for those who wait: %s", error.message
            )
            return bool(error.facts.get("done"))


def _drained(snapshot: Snapshot) -> frozenset[str]:
    """The devices on which nothing new is granted: they are not cut for it either."""
    devices = snapshot.inventory.devices
    return frozenset(device.id for device in devices if device.drain is not None)


def _leased(leases: Iterable[Lease]) -> dict[str, str]:
    """The id of the live lease by the UUID of each slice that is leased."""
    return {
        slice_.uuid: lease.id
        for lease in leases
        if lease.is_live
        for slice_ in lease.slices
        if slice_.uuid
    }
