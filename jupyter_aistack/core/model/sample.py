"""What was measured on a host at one moment, as its providers report it. Nothing here
asks a driver.

A figure that is None cannot be known here; it is never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .device import Device
from .lease import Lease


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a lease or a device used at one moment.

    Attributes:
        memory_bytes: memory held.
        utilization: busy share of the slice or device, 0 to 1.
        power_watts: power drawn (devices only).
        energy_joules: energy counter since some fixed moment (devices only).
    """

    memory_bytes: int | None = None
    utilization: float | None = None
    power_watts: float | None = None
    energy_joules: float | None = None


@dataclass(frozen=True, kw_only=True)
class UnitSample:
    """The processes on a whole device or a MIG instance, which slices are cut from.

    Attributes:
        memory: bytes each process holds, by process id; None for a process whose figure
            the driver keeps to itself, and for all where their list cannot be read.
        busy: share of the sampled time in which each process had the unit at work;
            a process that is missing did no work. None where the driver does not tell
            processes apart (MIG).
        activity: share of the unit's multiprocessors that worked, 0 to 1, whichever
            process they worked for.
    """

    memory: Mapping[int, int | None] | None = None
    busy: Mapping[int, float] | None = None
    activity: float | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceSample:
    """What one device reports at one moment.

    A provider attributes the use either by process (`units`) or, where it knows that
    better, by lease (`leases` and `others`).

    Attributes:
        memory_bytes: memory in use, whatever uses it.
        utilization: busy share of the device, 0 to 1.
        power_watts: power drawn now.
        millijoules: energy counter since some fixed moment; it only grows.
        units: by UUID, the device itself or its MIG instances. A unit that is missing
            has no list of processes at all.
        servers: processes that work for others, such as an MPS server: the driver may
            count the work of their clients as theirs.
        leases: use by lease id; ``utilization`` is a share of the lease's part.
        others: with `leases`, the activity of processes of no lease as a share of the
            device; None where activity cannot be attributed.
    """

    memory_bytes: int | None = None
    utilization: float | None = None
    power_watts: float | None = None
    millijoules: int | None = None
    units: Mapping[str, UnitSample] = field(default_factory=dict)
    servers: frozenset[int] = frozenset()
    leases: Mapping[str, Usage] = field(default_factory=dict)
    others: float | None = None

    @property
    def usage(self) -> Usage:
        """The figures of the device as a whole."""
        joules = None if self.millijoules is None else self.millijoules / 1000
        return Usage(
            memory_bytes=self.memory_bytes,
            utilization=self.utilization,
            power_watts=self.power_watts,
            energy_joules=joules,
        )


@dataclass(frozen=True, kw_only=True)
class HostSample:
    """All devices of a host at one moment. One sample serves all readers of usage.

    Attributes:
        number: counts the samples of this process.
        at: seconds since the epoch.
        leases: the leases it was taken for, by id: those live then, and those that
            ended since the sample before (their state is ``ended``).
        pids: the processes of each lease; a lease that is missing has none known.
        devices: by id.
        readings: by device id; a device whose provider failed has an empty reading.
    """

    number: int
    at: float
    leases: Mapping[str, Lease]
    pids: Mapping[str, frozenset[int]]
    devices: Mapping[str, Device]
    readings: Mapping[str, DeviceSample]

    def unit(self, uuid: str) -> UnitSample | None:
        """The processes on a GPU or MIG instance; None where no provider lists them."""
        for reading in self.readings.values():
            if uuid in reading.units:
                return reading.units[uuid]
        return None

    def device_usage(self) -> dict[str, Usage]:
        """Use by device id, whatever causes it."""
        return {i: reading.usage for i, reading in self.readings.items()}
