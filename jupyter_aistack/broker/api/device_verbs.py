"""Verbs about devices: taken out of placement by hand, and back."""

from __future__ import annotations

from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.drain import DrainKind
from jupyter_aistack.core.placement.placement import free_share
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.values import (
    END_OF_TIME,
    device_to_dict,
    number_field,
    text_field,
)
from jupyter_aistack.exceptions import InvalidRequest

from .base import Payload, Verb, VerbGroup
from .caller import Caller


class DeviceVerbs(VerbGroup):
    """``drain``, ``undrain`` and ``quarantine``."""

    def verbs(self) -> dict[str, Verb]:
        return {
            "drain": self._drain,
            "undrain": self._undrain,
            "quarantine": self._quarantine,
        }

    def _drain(self, payload: Payload, caller: Caller) -> JSON:
        drained = self._broker.drains.drain(
            text_field(payload, "device"),
            until=self._until(payload),
            reason=text_field(payload, "reason", ""),
            created_by=caller.user,
        )
        return self._device(drained)

    def _quarantine(self, payload: Payload, caller: Caller) -> JSON:
        for name in ("until", "seconds"):
            if payload.get(name) is not None:
                raise InvalidRequest(
                    f"{name}: a quarantine lasts until the device is undrained",
                    field=name,
                )
        drained = self._broker.drains.drain(
            text_field(payload, "device"),
            kind=DrainKind.QUARANTINE,
            reason=text_field(payload, "reason", ""),
            created_by=caller.user,
        )
        return self._device(drained)

    def _undrain(self, payload: Payload, caller: Caller) -> JSON:
        return self._device(self._broker.drains.undrain(text_field(payload, "device")))

    def _until(self, payload: Payload) -> float | None:
        """When it ends by itself: at a time, or after so many seconds."""
        until = number_field(payload, "until", most=END_OF_TIME)
        seconds = number_field(payload, "seconds", least=1)
        if until is not None and seconds is not None:
            raise InvalidRequest(
                "seconds: give either until or seconds", field="seconds"
            )
        if seconds is not None:
            return self._broker.clock() + seconds
        return until

    def _device(self, device: Device) -> JSON:
        leases = self._broker.current_leases()
        taken = [slice_ for lease in leases for slice_ in lease.occupied]
        host_name = self._broker.inventory().name_of(device.host)
        return device_to_dict(device, free_share(device, taken), host_name)
