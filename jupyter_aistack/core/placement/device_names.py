"""Devices as people name them."""

from __future__ import annotations

from jupyter_aistack.core.model.device import Device, DeviceKind, Inventory
from jupyter_aistack.exceptions import InvalidRequest

LEAST_PREFIX = 4
"""Characters of an id that must be given."""


def device_named(text: str, inventory: Inventory) -> Device:
    """The device that people mean: its id, or enough of the beginning of it; the number
    of a GPU; ``cpu``; or an id of one of its MIG instances.

    Raises:
        InvalidRequest: none is called so, or several are.
    """
    gpus = inventory.of_kind(DeviceKind.GPU)
    cpus = inventory.of_kind(DeviceKind.CPU)
    named = [device for device in inventory.devices if text in _ids(device)]
    if not named and text.isdecimal():
        named = [device for device in gpus if device.index == int(text)]
    if not named and text.lower() == DeviceKind.CPU.value:
        named = list(cpus)
    if not named and len(text) >= LEAST_PREFIX:
        named = [device for device in inventory.devices if device.id.startswith(text)]
    if len(named) == 1:
        return named[0]
    count = "several are" if named else "none is"
    there = [f"{gpu.index} ({gpu.id})" for gpu in gpus] + [cpu.id for cpu in cpus]
    raise InvalidRequest(
        f"device: {count} called {text!r}; there is {', '.join(there) or 'none'}",
        field="device",
    )


def _ids(device: Device) -> set[str]:
    return {device.id, *(instance.uuid for instance in device.mig)}
