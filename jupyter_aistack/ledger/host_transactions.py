"""What a ledger keeps of machines, and what becomes of a machine that is started again."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.host import HostIdentity, HostReport
from jupyter_aistack.core.model.lease import LeaseTransition
from jupyter_aistack.core.model.request import Holder, RequestState

from .apply_plan import set_request_state
from .lease_end import end
from .rows import Rows
from .transactions import LARGEST, Transactions

STARTED_AGAIN = "its machine was started again"


class HostTransactions(Transactions):
    """The part of the port that brokers register their machines with."""

    def register_host(self, host: HostIdentity, now: float) -> tuple[str, ...]:
        with self._reading() as rows:
            known = rows.hosts()
        before = tuple(other.id for other in known if host.may_follow(other))
        if host not in known:
            with self._changing(now) as rows:
                _keep(rows, host, now)
                _copy_drains(rows, before, host.id)
        return before

    def succeed_host(self, before: str, host: HostIdentity, now: float) -> None:
        with self._changing(now) as rows:
            if all(other.id != before for other in rows.hosts()):
                return  # another process was first
            for lease in rows.leases(host=before, live=True, limit=LARGEST):
                step = LeaseTransition.REAP
                end(rows, lease, step, now, self.half_life_seconds, STARTED_AGAIN)
            for request in rows.queued(before):
                cancelled = replace(
                    request, state=RequestState.CANCELLED, reason=STARTED_AGAIN
                )
                kind = EventKind.REQUEST_CANCELLED
                set_request_state(rows, request, cancelled, kind, now)
            _move_reservations(rows, before, host.id, now)
            # What is still wrong with a device its driver tells anew.
            for fault in rows.device_faults(before):
                rows.remove_device_faults(before, fault.device_id)
            kept = (drain for drain in rows.drains() if drain.host != before)
            rows.keep_drains(tuple(kept))
            rows.remove_host(before)
            rows.remove_host_reports(before)
            rows.version += 1

    def report_host(self, report: HostReport) -> tuple[HostReport, ...]:
        known = self.host_reports()
        if report.is_due_after(_last(known, report)):
            with self._writing() as rows:
                _keep_report(rows, report)
        return tuple(other for other in known if other.host != report.host)

    def host_reports(self) -> tuple[HostReport, ...]:
        with self._reading() as rows:
            return tuple(sorted(rows.host_reports(), key=_place))


def _place(report: HostReport) -> tuple[str, str]:
    return report.host, report.allowance


def _last(known: Iterable[HostReport], report: HostReport) -> HostReport | None:
    """The last report of the same host and allowance."""
    return next((last for last in known if _place(last) == _place(report)), None)


def _keep_report(rows: Rows, report: HostReport) -> None:
    last = _last(rows.host_reports(), report)
    if report.is_due_after(last):
        rows.keep_host_report(report, is_new=last is None)


def _keep(rows: Rows, host: HostIdentity, now: float) -> None:
    known = rows.hosts()
    if host in known:
        return
    rows.keep_host(host, is_new=all(not _is_same_row(host, each) for each in known))
    if host.name != host.id:
        _adopt(rows, host, now)


def _is_same_row(host: HostIdentity, other: HostIdentity) -> bool:
    return (host.id, host.name) == (other.id, other.name)


def _adopt(rows: Rows, host: HostIdentity, now: float) -> None:
    """Take over what was written under a machine's name before it had an id."""
    for lease in rows.leases(host=host.name, live=True, limit=LARGEST):
        rows.keep_lease(replace(lease, holder=_of_host(lease.holder, host)))
    for request in rows.queued(host.name):
        rows.keep_request(replace(request, holder=_of_host(request.holder, host)))
    _move_reservations(rows, host.name, host.id, now)
    rows.version += 1


def _of_host(holder: Holder, host: HostIdentity) -> Holder:
    return replace(holder, host=host.id, host_name=host.name)


def _copy_drains(rows: Rows, before: Collection[str], after: str) -> None:
    """What was taken out of placement before a machine was started again stays so, from
    its first moment on. What is of no vendor is called by its host.
    """
    drains = rows.drains()
    known = {drain.device_id for drain in drains if drain.host == after}
    copies = []
    for drain in drains:
        device_id = drain.device_id.replace(drain.host, after)
        if drain.host in before and device_id not in known:
            copies.append(replace(drain, host=after, device_id=device_id))
    if copies:
        rows.keep_drains((*drains, *copies))
        rows.version += 1


def _move_reservations(rows: Rows, before: str, after: str, now: float) -> None:
    for reservation in rows.reservations(before, now):
        rows.remove_reservation(reservation.id)
        rows.add_reservation(replace(reservation, host=after))
