"""What a host has: devices, the slices they can be cut into, and what enforces a
slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction

from .device_health import UNKNOWN_HEALTH, DeviceHealth, HealthConditions
from .drain import Drain

FOREIGN_TOLERANCE = Fraction(1, 100)
"""Share of a GPU's memory that foreign processes (a display server, say) may hold while the GPU
still counts as whole.
"""


class DeviceKind(StrEnum):
    GPU = "gpu"
    CPU = "cpu"


class SliceKind(StrEnum):
    """How a slice is cut out of its device."""

    GPU = "gpu"  # the whole GPU
    MIG = "mig"  # a MIG instance
    MPS = "mps"  # a share held by an MPS server
    SHARE = "share"  # a cooperative share of a GPU
    CPU = "cpu"  # cores and memory of the host


class Enforcement(StrEnum):
    """What holds a slice to its size, strongest first."""

    L4 = "L4"
    L3 = "L3"
    L2 = "L2"
    L1 = "L1"
    L0 = "L0"
    WHOLE = "whole"
    CPU = "C"
    SIMULATED = "simulated"

    @property
    def label(self) -> str:
        """The sentence shown to users; says "advisory" wherever nothing but good will
        holds.
        """
        return _ENFORCEMENT_LABELS[self]

    @property
    def is_by_mps(self) -> bool:
        """Whether its processes are clients of an MPS server."""
        return self in (Enforcement.L1, Enforcement.L2, Enforcement.L3)


_ENFORCEMENT_LABELS = {
    Enforcement.L4: "MIG instance (hardware)",
    Enforcement.L3: "MPS namespace and cgroup (driver)",
    Enforcement.L2: "MPS namespace (driver)",
    Enforcement.L1: "MPS daemon (driver)",
    Enforcement.L0: "framework caps (advisory)",
    Enforcement.WHOLE: "whole GPU, chosen by its environment (advisory)",
    Enforcement.CPU: "CPU affinity and thread counts; memory is watched",
    Enforcement.SIMULATED: "nothing: the device is simulated",
}


@dataclass(frozen=True, kw_only=True)
class ProcessUse:
    """Memory one process holds on one device; None for a figure that the driver keeps
    to itself.
    """

    pid: int
    memory_bytes: int | None
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class MIGInstance:
    """A MIG instance that exists on a GPU now, as NVML's attributes describe it.

    Attributes:
        uuid: its own.
        profile: the name of its shape, e.g. ``1g.18gb``, by which it is asked for; no
            figure is read from it.
        memory_bytes: memory that belongs to it.
        multiprocessors: number of SMs; 0 when unknown.
        gpu_slices: compute slices of the GPU instance it lies in; 0 when unknown.
        compute_slices: how many of those are its own; fewer than all means that its
            memory is its neighbours' too.
    """

    uuid: str
    profile: str
    memory_bytes: int
    multiprocessors: int = 0
    gpu_slices: int = 0
    compute_slices: int = 0


@dataclass(frozen=True, kw_only=True)
class Device:
    """One physical accelerator, or the host's CPU.

    Attributes:
        id: UUID as the driver spells it (``GPU-...``); ``CPU-<host>`` for the CPU.
        host: name of the machine.
        kind: GPU or CPU.
        index: position on the host, for people.
        name: the model, for people.
        memory_bytes: all memory of the device.
        cores: ids of the CPU cores that may be granted; empty for a GPU.
        multiprocessors: number of SMs; 0 when unknown or not a GPU.
        mig: the MIG instances; a device that has any is granted by instance only.
        mig_enabled: MIG mode is on (it may be on with no instance).
        mig_offers: profiles that may be created on it when a request waits for one;
            empty unless the admin allows it.
        vendor: who made it, as far as that decides what may be mixed in one process:
            ``nvidia``, ``amd`` or empty.
        is_divisible: fractions of it can be held apart, or at least be capped.
        peers: ids of the devices of this host that it reaches by NVLink.
        domain: what it shares a PCIe root or NUMA node with others by; empty when
            unknown.
        processes: who holds memory on it now; None where they cannot be listed.
        strays: those of `processes` that have no lease of it (see `told_apart`); those
            whose ids mean nothing here are left out.
        foreign_memory_bytes: memory held by processes outside any lease, at least; None
            where they cannot be told from those of leases (see `told_apart`).
        own_memory_bytes: memory held by processes of leases; None where that is unknown.
        used_bytes: memory in use, by the driver, whoever uses it; None where it does not
            say. Not part of what the device is, and neither is `free_bytes`.
        free_bytes: memory that is free now, by the driver; None where it does not say.
        least_share_bytes: memory without which a share of it is of no use: what its
            driver takes for each process, and a little to work in.
        context_bytes: what the driver takes of it for each process, as measured; None
            where it was not.
        simulated: nothing real stands behind it.
        problem: why it cannot be used, in one sentence; empty when healthy.
        level: the firmest that shares of it are held now (see `highest_level`); None where no
            share of it can be granted, or that is not known.
        why_not: each level above that one, and in one sentence why it is not reached.
        advice: what an administrator could do to have shares held more firmly, or the
            device work better; empty for nothing.
        health: what the driver tells of its errors, sensors and limits. What is an
            error of it is in words in `problem`.
        drain: that nothing new is granted on it, for somebody has said so; None where
            nobody has.
    """

    id: str
    host: str
    kind: DeviceKind
    index: int
    name: str
    memory_bytes: int
    cores: tuple[int, ...] = ()
    multiprocessors: int = 0
    mig: tuple[MIGInstance, ...] = ()
    mig_enabled: bool = False
    mig_offers: tuple[str, ...] = ()
    vendor: str = ""
    is_divisible: bool = True
    peers: frozenset[str] = frozenset()
    domain: str = ""
    processes: tuple[ProcessUse, ...] | None = ()
    strays: tuple[ProcessUse, ...] = ()
    foreign_memory_bytes: int | None = 0
    own_memory_bytes: int | None = 0
    used_bytes: int | None = field(default=None, compare=False)
    free_bytes: int | None = field(default=None, compare=False)
    least_share_bytes: int = 0
    context_bytes: int | None = None
    simulated: bool = False
    problem: str = ""
    level: Enforcement | None = None
    why_not: tuple[tuple[str, str], ...] = ()
    advice: str = ""
    health: DeviceHealth = UNKNOWN_HEALTH
    drain: Drain | None = None

    @property
    def is_healthy(self) -> bool:
        return not self.problem

    @property
    def is_schedulable(self) -> bool:
        """Whether anything new may be granted on it."""
        return self.is_healthy and self.drain is None

    @property
    def schedulable_at(self) -> float:
        """When something new may be granted on it as far as is known, in seconds since
        the epoch: minus infinity for now, infinity where that is not known.
        """
        if not self.is_healthy:
            return math.inf
        if self.drain is None:
            return -math.inf
        return math.inf if self.drain.until is None else self.drain.until

    @property
    def is_real_gpu(self) -> bool:
        """Whether it is a GPU that processes may find, and not a simulated GPU."""
        return self.kind is DeviceKind.GPU and not self.simulated

    @property
    def conditions(self) -> HealthConditions:
        """What people should know of its health, the gravest first."""
        return self.health.conditions

    @property
    def is_uncut(self) -> bool:
        """Whether it may be granted as a whole: it is not cut into MIG instances."""
        return not self.mig_enabled and not self.mig

    @property
    def is_shareable(self) -> bool:
        """Whether fractions of it may be granted."""
        return self.is_uncut and self.is_divisible


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that broke what enforces the shares of a device, and with it the work
    of all who share it. What is wrong with the device itself is in its health.

    Attributes:
        device_id: the device.
        pid: the process that caused it; None when unknown.
        message: one sentence for those whose work is lost.
    """

    device_id: str
    pid: int | None
    message: str


EVERY_DEVICE = "*"
"""The device of a slice of which no device is known: it may be cut from any, and takes
as much of each.
"""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The smallest thing that can be leased.

    Attributes:
        device_id: the device it is cut from.
        kind: how it is cut.
        fraction: its share of the device, 0 < fraction <= 1.
        memory_bytes: memory that belongs to it.
        uuid: what ``CUDA_VISIBLE_DEVICES`` (AMD: ``ROCR_VISIBLE_DEVICES``) must name:
            the GPU's or the MIG instance's UUID; empty on CPUs.
        profile: MIG profile name, else empty.
        cores: CPU cores it may run on (CPU slices only).
        gpu_slices: as in `MIGInstance`; 0 on other slices.
        compute_slices: likewise.
    """

    device_id: str
    kind: SliceKind
    fraction: Fraction
    memory_bytes: int
    uuid: str = ""
    profile: str = ""
    cores: tuple[int, ...] = ()
    gpu_slices: int = 0
    compute_slices: int = 0


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The devices of one host as seen at one moment.

    Attributes:
        host: its id.
        host_name: what people call it; empty where that is `host`.
        devices: of one host, or of several where a cluster is simulated; each says
            which it is on.
        problems: providers that could not answer, one sentence each.
    """

    host: str
    devices: tuple[Device, ...] = ()
    problems: tuple[str, ...] = ()
    host_name: str = ""

    def name_of(self, host: str) -> str:
        """What people call a host of which there are devices here."""
        if host != self.host:
            return host
        return self.host_name or host

    def device(self, device_id: str) -> Device | None:
        return next((d for d in self.devices if d.id == device_id), None)

    def of_kind(self, kind: DeviceKind) -> tuple[Device, ...]:
        return tuple(d for d in self.devices if d.kind is kind)

    @property
    def is_simulated(self) -> bool:
        return any(d.simulated for d in self.devices)

    def with_drains(self, drains: Iterable[Drain], now: float) -> Inventory:
        """The same devices, those marked on which nothing new is granted at `now`."""
        current = {drain.device_id: drain for drain in drains if not drain.is_over(now)}
        if current.keys().isdisjoint(device.id for device in self.devices):
            return self
        devices = tuple(
            replace(device, drain=current.get(device.id)) for device in self.devices
        )
        return replace(self, devices=devices)


def known_or_fresh(known: Inventory | None, fresh: Inventory) -> Inventory:
    """The known inventory where nothing has changed, so that what was worked out for it
    is known by identity.
    """
    if known is None or known != fresh:
        return fresh
    if list(map(_measured, known.devices)) == list(map(_measured, fresh.devices)):
        return known
    return fresh


def _measured(device: Device) -> tuple[object, ...]:
    """What is shown of a device and is no part of what it is."""
    return (device.free_bytes, device.health.figures)
