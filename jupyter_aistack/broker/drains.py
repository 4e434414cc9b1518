"""Devices of a host that are taken out of placement by hand, and back."""

from __future__ import annotations

from jupyter_aistack.core.model.device import Device, Inventory
from jupyter_aistack.core.model.drain import Drain, DrainKind
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.core.placement.device_names import device_named
from jupyter_aistack.exceptions import InvalidRequest, Refused

from .cycle import SchedulingCycle
from .host_state import HostState

MAX_REASON = 512


class Drains:
    """The drains of this host.

    Args:
        host_state: where they are written down, and the devices they are of.
        cycle: run when one begins or ends.
    """

    def __init__(self, host_state: HostState, cycle: SchedulingCycle) -> None:
        self._host_state = host_state
        self._cycle = cycle

    def inventory(self) -> Inventory:
        """The devices of this host, those marked on which nothing new is granted."""
        drains = self._host_state.read().drains
        inventory = self._host_state.inventory()
        return inventory.with_drains(drains, self._host_state.now())

    def drain(
        self,
        device: str,
        *,
        kind: DrainKind = DrainKind.DRAIN,
        until: float | None = None,
        reason: str = "",
        created_by: str = "",
    ) -> Device:
        """Grant nothing new on a device, and tell those who hold a part of it; in place
        of what was said of it before.

        Args:
            device: its id, the beginning of it or its number, or an id of one of its
                MIG instances, which are covered with it.
            kind: why.
            until: when that ends by itself; None for when somebody ends it.
            reason: the same in words.
            created_by: who says so.

        Raises:
            InvalidRequest: a field makes no sense; it is named.
        """
        now = self._host_state.now()
        if until is not None and until <= now:
            raise InvalidRequest("until: that time is over already", field="until")
        known = device_named(device, self._host_state.inventory())
        drain = Drain(
            device_id=known.id,
            device_name=f"{known.name} {known.index}",
            host=self._host_state.host,
            kind=kind,
            reason=printable(reason).strip()[:MAX_REASON],
            until=until,
            since=now,
            created_by=created_by,
        )
        self._host_state.ledger.drain(drain, now)
        self._cycle.follow_up()
        return self._marked(known.id)

    def undrain(self, device: str) -> Device:
        """Grant a device again, and serve who has waited for it.

        Raises:
            InvalidRequest: there is no such device.
            Refused: nothing was said of it.
        """
        known = device_named(device, self._host_state.inventory())
        ledger = self._host_state.ledger
        host = self._host_state.host
        if ledger.undrain(host, known.id, self._host_state.now()) is None:
            raise Refused(f"device: {known.name} {known.index} is not being drained")
        self._cycle.follow_up()
        return self._marked(known.id)

    def end_over(self) -> None:
        """End those whose time is over. The cycle that follows grants their devices."""
        now = self._host_state.now()
        if any(drain.is_over(now) for drain in self._host_state.read().drains):
            self._host_state.ledger.end_drains(self._host_state.host, now)

    def _marked(self, device_id: str) -> Device:
        device = self.inventory().device(device_id)
        if device is None:
            raise Refused("device: it has gone meanwhile")
        return device
