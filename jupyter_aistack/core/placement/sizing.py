"""How much of which devices a spec takes, and the words for what cannot be had at
all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from jupyter_aistack.core.model.device import Device, DeviceKind, Inventory
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.model.units import format_bytes

TOO_MUCH = Fraction(2)
"""The share of a device that is too small."""


@lru_cache(maxsize=1024)
def is_model(name: str, models: tuple[str, ...]) -> bool:
    """Whether one of the models is a word of the device's name: ``a100`` of ``NVIDIA
    A100-SXM4-80GB``.
    """
    words = re.split(r"[^a-z0-9.]+", name.lower())
    return any(set(re.split(r"[^a-z0-9.]+", model)) <= set(words) for model in models)


def _share_of(spec: Spec, device: Device) -> Fraction:
    """The share of `device` that `spec` asks for, or `TOO_MUCH`."""
    if spec.unit is Unit.FRACTION:
        return spec.amount
    if spec.unit not in (Unit.MEMORY, Unit.CORES):
        return Fraction(1)
    whole = device.memory_bytes if spec.unit is Unit.MEMORY else len(device.cores)
    return spec.amount / whole if spec.amount <= whole else TOO_MUCH


def sizes_on(
    spec: Spec, hosts: Mapping[str, Iterable[Device]]
) -> dict[str, dict[str, Fraction]]:
    """By host and device id, the share `spec` takes of each of the devices that could
    hold it when idle.

    Devices alike are reckoned once.
    """
    known: dict[tuple[int, int], Fraction] = {}
    found: dict[str, dict[str, Fraction]] = {}
    for host, devices in hosts.items():
        sizes = found[host] = {}
        for device in devices:
            alike = (device.memory_bytes, len(device.cores))
            share = known.get(alike)
            if share is None:
                share = known[alike] = _share_of(spec, device)
            if (
                device.is_uncut
                and (device.is_divisible or share == 1)
                and share is not TOO_MUCH
            ):
                sizes[device.id] = share
    return found


def most_alike(devices: Iterable[Device]) -> int:
    """How many there are at most of one maker; one process cannot use GPUs of two."""
    return max(Counter(device.vendor for device in devices).values(), default=0)


def of_one_maker(devices: Sequence[Device], count: int) -> Sequence[Device]:
    """The devices of the first maker, in their order, that has so many; all are of it
    where there is one maker.
    """
    for vendor in dict.fromkeys(device.vendor for device in devices):
        alike = [device for device in devices if device.vendor == vendor]
        if len(alike) >= count:
            return alike
    return ()


def beside_share(spec: Spec, device: Device) -> Fraction:
    """The share of the host that cores and memory beside a device make: the larger of
    the two.
    """
    cores = (
        Fraction(spec.host_cores, len(device.cores))
        if device.cores
        else Fraction(2 * bool(spec.host_cores))
    )
    memory = (
        Fraction(spec.host_memory_bytes, device.memory_bytes)
        if device.memory_bytes
        else Fraction(0)
    )
    return max(cores, memory)


def no_device(spec: Spec, inventory: Inventory) -> str:
    problems = f" ({'; '.join(inventory.problems)})" if inventory.problems else ""
    if spec.models and inventory.of_kind(DeviceKind.GPU):
        names = ", ".join(
            sorted({device.name for device in inventory.of_kind(DeviceKind.GPU)})
        )
        return f"{spec} cannot be had: no GPU here is of that model; there is {names}{problems}"
    if spec.target is not DeviceKind.GPU and not spec.needs_host:
        return f"{spec} cannot be had: this host offers no device{problems}"
    share = str(spec).removeprefix("gpu:").split(",")[0]
    way_out = (
        ""
        if spec.unit is Unit.PROFILE
        else f"; ask for {share} to take a share of the CPU instead"
    )
    return f"{spec} cannot be had: this host has no GPU{problems}{way_out}"


def too_much(spec: Spec, kind: DeviceKind, devices: Sequence[Device]) -> str:
    return f"{spec} cannot be had here: {_what_there_is(spec, kind, devices)}"


def _what_there_is(spec: Spec, kind: DeviceKind, devices: Sequence[Device]) -> str:
    if (
        devices
        and all(d.is_uncut and not d.is_divisible for d in devices)
        and spec.unit is not Unit.DEVICES
    ):
        return "whole AMD GPUs only; ask for 1"
    if any(not d.is_uncut for d in devices):
        offered = sorted({m.profile for d in devices for m in d.mig})
        return f"this host's GPUs are cut into MIG instances; ask for one of {', '.join(offered) or '(none yet)'}"
    if spec.unit is Unit.MEMORY:
        able = [device for device in devices if device.is_shareable] or devices
        return (
            f"the largest device has {format_bytes(max(d.memory_bytes for d in able))}"
        )
    if spec.unit is Unit.CORES:
        return f"this host has {max(len(d.cores) for d in devices)} cores"
    if len(devices) >= int(spec.amount) > most_alike(devices):
        return f"its GPUs are of two makers, which one process cannot mix; at most {most_alike(devices)} are alike"
    noun = "GPU" if kind is DeviceKind.GPU else "CPU device"
    model = f" of {'|'.join(spec.models)}" if spec.models else ""
    return (
        f"this host has {len(devices)} {noun}{'s' if len(devices) != 1 else ''}{model}"
    )
