"""A machine, as all who share a ledger know it, and what it tells them of itself."""

from __future__ import annotations

from dataclasses import dataclass

from .device import Device, DeviceKind


@dataclass(frozen=True, kw_only=True)
class HostIdentity:
    """One machine in its present run, under one of its names.

    Attributes:
        id: what tells it from all others: the same in all its containers, whatever they
            are called, and another after each start.
        name: what it calls itself here, for people.
        machine: what stays the same when it is started again; empty where that is not
            known.
    """

    id: str
    name: str
    machine: str = ""

    def may_follow(self, other: HostIdentity) -> bool:
        """Whether this may be the machine that was `other` before it was started
        again.
        """
        is_named_alike = self.name == other.name
        is_same_machine = self.machine == other.machine
        is_later = self.id != other.id
        return is_named_alike and is_same_machine and is_later


REPORT_SECONDS = 20.0
"""So often a host writes down that it is there."""
UNSEEN_SECONDS = 60.0
"""A host that has written nothing for so long has not been heard of: three reports are
missing.
"""


@dataclass(frozen=True, kw_only=True)
class ReportedDevice:
    """A device as the brokers of other hosts know it; the fields are `Device`'s."""

    id: str
    index: int
    name: str
    kind: DeviceKind
    memory_bytes: int
    simulated: bool = False
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class HostReport:
    """What a broker has told of its host to all who share its ledger.

    Attributes:
        host: its id.
        host_name: what people call it.
        allowance: the devices that the broker's launcher may use, as
            `Provider.allowance` names them; empty for all. Brokers that may use
            different devices report each for itself.
        seen_at: when that was, by the host's clock, in seconds since the epoch.
        devices: what the broker grants.
    """

    host: str
    host_name: str
    allowance: str = ""
    seen_at: float
    devices: tuple[ReportedDevice, ...] = ()

    def is_due_after(self, known: HostReport | None) -> bool:
        """Whether it says more than what is known: something new, or that the host is
        still there.
        """
        if known is None or known.devices != self.devices:
            return True
        age = self.seen_at - known.seen_at
        return not 0 <= age < REPORT_SECONDS


def reported(device: Device) -> ReportedDevice:
    """What is told to others of a device."""
    return ReportedDevice(
        id=device.id,
        index=device.index,
        name=device.name,
        kind=device.kind,
        memory_bytes=device.memory_bytes,
        simulated=device.simulated,
        problem=device.problem,
    )


def is_heard(seen_at: float, now: float) -> bool:
    """Whether a host that reported at `seen_at` is known to be there. A clock that is
    ahead of ours makes no host unknown.
    """
    return now - seen_at < UNSEEN_SECONDS
