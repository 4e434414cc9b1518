"""All hosts that share a ledger, as each has told of itself and as the ledger knows its
leases and requests. It is for people: each broker grants the devices of its own host.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from jupyter_aistack.core.model.device import EVERY_DEVICE
from jupyter_aistack.core.model.host import HostReport, ReportedDevice, is_heard
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, Request

from .host_state import HostState


@dataclass(frozen=True, kw_only=True)
class HostOverview:
    """A host, as the others know it.

    Attributes:
        id: its id.
        name: what people call it.
        is_here: it is the host that answers.
        seen_at: when it last told that it is there, in seconds since the epoch; None
            for never.
        is_heard: it has done so lately. What is free on a host that has not is unknown.
        devices: what it grants, as it told last.
        leases: its live leases, newest first.
        requests: those that wait there, in the order they came.
    """

    id: str
    name: str
    is_here: bool
    seen_at: float | None
    is_heard: bool
    devices: tuple[ReportedDevice, ...]
    leases: tuple[Lease, ...]
    requests: tuple[Request, ...]

    def free_share(self, device: ReportedDevice) -> Fraction | None:
        """The share of a device that is not leased; None where that is unknown."""
        if not self.is_heard:
            return None
        of_device = (device.id, EVERY_DEVICE)
        slices = (slice_ for lease in self.leases for slice_ in lease.occupied)
        taken = (each.fraction for each in slices if each.device_id in of_device)
        return max(Fraction(0), 1 - sum(taken, Fraction(0)))


class Hosts:
    """Reads what all hosts hold.

    Args:
        host_state: this host, and the ledger.
    """

    def __init__(self, host_state: HostState) -> None:
        self._host_state = host_state

    def overviews(self) -> tuple[HostOverview, ...]:
        """All hosts: this host, then the others by name."""
        state = self._host_state
        state.report()
        now = state.now()
        reports = _by_host(state.ledger.host_reports())
        leases: defaultdict[str, list[Lease]] = defaultdict(list)
        for lease in state.ledger.leases(now, limit=MAX_LEASES):
            leases[lease.holder.host].append(lease)
        requests: defaultdict[str, list[Request]] = defaultdict(list)
        for request in state.ledger.waiting():
            requests[request.holder.host].append(request)

        hosts = {state.host, *reports, *leases, *requests}
        overviews = (
            self._overview(host, reports[host], leases[host], requests[host], now)
            for host in hosts
        )
        return tuple(sorted(overviews, key=_place))

    def _overview(
        self,
        host: str,
        reports: list[HostReport],
        leases: list[Lease],
        requests: list[Request],
        now: float,
    ) -> HostOverview:
        newest = max(reports, key=lambda report: report.seen_at, default=None)
        holders = [lease.holder for lease in leases]
        holders += [request.holder for request in requests]
        seen_at = None if newest is None else newest.seen_at
        return HostOverview(
            id=host,
            name=self._name(host, newest, holders),
            is_here=host == self._host_state.host,
            seen_at=seen_at,
            is_heard=seen_at is not None and is_heard(seen_at, now),
            devices=_devices(reports, newest, now),
            leases=tuple(leases),
            requests=tuple(requests),
        )

    def _name(
        self, host: str, report: HostReport | None, holders: Iterable[Holder]
    ) -> str:
        if host == self._host_state.host:
            return self._host_state.identity.name
        if report is not None:
            return report.host_name
        return next((holder.shown_host for holder in holders), host)


MAX_LEASES = 10_000
"""Live leases of all hosts that are shown, the newest first."""


def _by_host(reports: Iterable[HostReport]) -> defaultdict[str, list[HostReport]]:
    grouped: defaultdict[str, list[HostReport]] = defaultdict(list)
    for report in reports:
        grouped[report.host].append(report)
    return grouped


def _devices(
    reports: Iterable[HostReport], newest: HostReport | None, now: float
) -> tuple[ReportedDevice, ...]:
    """The devices that the brokers of a host grant together: those that were heard of
    lately, else the last.
    """
    if newest is None:
        return ()
    heard = [each for each in reports if is_heard(each.seen_at, now)]
    devices = {
        device.id: device for report in (*heard, newest) for device in report.devices
    }
    return tuple(sorted(devices.values(), key=lambda each: (each.kind, each.index)))


def _place(overview: HostOverview) -> tuple[bool, str, str]:
    return not overview.is_here, overview.name, overview.id
