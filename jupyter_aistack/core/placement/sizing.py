"""How much of which devices a spec takes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.spec import Spec, Unit

TOO_MUCH = Fraction(2)
"""The share of a device that is too small."""


@lru_cache(maxsize=1024)
def is_model(name: str, models: tuple[str, ...]) -> bool:
    """Whether one of the models is a word of the device's name: ``a100`` of ``NVIDIA
    A100-SXM4-80GB``.
    """
    words = _words(name)
    return any(_words(model) <= words for model in models)


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9.]+", name.lower()))


def share_of(spec: Spec, device: Device) -> Fraction:
    """The share of `device` that `spec` asks for, or `TOO_MUCH`."""
    if spec.unit is Unit.FRACTION:
        return spec.amount
    if spec.unit not in (Unit.MEMORY, Unit.CORES):
        return Fraction(1)

    whole = device.memory_bytes if spec.unit is Unit.MEMORY else len(device.cores)
    if spec.amount <= whole:
        return spec.amount / whole
    return TOO_MUCH


def sizes_on(
    spec: Spec, hosts: Mapping[str, Iterable[Device]]
) -> dict[str, dict[str, Fraction]]:
    """By host and device id, the share `spec` takes of each of the devices that could
    hold it when idle.

    Devices of equal memory and cores are computed once.
    """
    shares: dict[tuple[int, int], Fraction] = {}
    sizes: dict[str, dict[str, Fraction]] = {}
    for host, devices in hosts.items():
        sizes[host] = {}
        for device in devices:
            alike = (device.memory_bytes, len(device.cores))
            share = shares.get(alike)
            if share is None:
                share = share_of(spec, device)
                shares[alike] = share
            if _could_hold(device, share):
                sizes[host][device.id] = share
    return sizes


def _could_hold(device: Device, share: Fraction) -> bool:
    if share is TOO_MUCH or not device.is_uncut:
        return False
    return share == 1 or (device.is_divisible and not is_too_little(device, share))


def is_too_little(device: Device, share: Fraction) -> bool:
    """Whether a share of a device leaves a process no memory to work in."""
    return share * device.memory_bytes < device.least_share_bytes


def most_alike(devices: Iterable[Device]) -> int:
    """How many devices are of the same maker, at most; one process cannot use GPUs of
    two makers.
    """
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


def host_share(spec: Spec, device: Device) -> Fraction:
    """The share of the host that the cores and the memory beside a device make: the
    larger of the two.

    Args:
        device: the host's CPU.
    """
    cores = Fraction(2 * bool(spec.host_cores))
    if device.cores:
        cores = Fraction(spec.host_cores, len(device.cores))

    memory = Fraction(0)
    if device.memory_bytes:
        memory = Fraction(spec.host_memory_bytes, device.memory_bytes)
    return max(cores, memory)
