"""The devices that processes under stress share."""

from __future__ import annotations

from dataclasses import replace

from jupyter_aistack.core.model.device import Device, DeviceKind
from tests.fakes.bare_provider import BareProvider

SPECS = ("1/4", "1/3", "1/2", "1/2x2", "1", "2", "10GiB", "cpu:1", "cpu:2", "cpu:1/4")
DEVICES = (
    *(
        Device(
            id=f"GPU-{i}",
            host="",
            kind=DeviceKind.GPU,
            index=i,
            name="Stress GPU",
            memory_bytes=40 << 30,
        )
        for i in range(2)
    ),
    Device(
        id="CPU-stress",
        host="",
        kind=DeviceKind.CPU,
        index=0,
        name="Stress CPU",
        memory_bytes=8 << 30,
        cores=(0, 1, 2, 3),
    ),
)


class FixedDevices(BareProvider):
    """Devices that exist for the broker alone."""

    name = "fixed"
    simulated = True

    def discover(self, host: str) -> tuple[Device, ...]:
        return tuple(replace(device, host=host) for device in DEVICES)
