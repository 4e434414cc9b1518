"""What a ledger's rules see of its tables, and how they find what a caller names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    Key,
    MeterState,
    UsageRecord,
)
from jupyter_aistack.core.audit.chain import Link, Row
from jupyter_aistack.core.audit.changes import lease_changes, request_changes
from jupyter_aistack.core.model.archive import ArchiveSegment, RecordKey, RecordKind
from jupyter_aistack.core.model.condition import ConditionUpdate
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.host import HostIdentity, HostReport
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.usage_history import Account
from jupyter_aistack.exceptions import LeaseLost, LeaseNotFound, StaleToken


class Rows(Protocol):
    """What a transaction can see and keep. Only a write transaction may call the
    methods that change something.
    """

    version: int
    chain_end: Link
    """The last event, behind which the next is chained."""

    def expect(
        self,
        *,
        due_at: float | None = None,
        leases: Iterable[str] = (),
        requests: Iterable[str] = (),
        named: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Say what will be read in a moment, so that a server need be waited for once.

        Args:
            due_at: a time for which `due`, or in a reading transaction `is_any_due`,
                will be called.
            leases, requests: ids of those that will be looked up.
            named: what `requests_named` will be called with, each time.
        """

    def next_token(self) -> int:
        """A number larger than any given before."""

    def is_any_due(self, now: float) -> bool:
        """Whether a live lease is past the end its user asked for; cheap."""

    def due(self, now: float) -> list[Lease]:
        """The live leases past the end their users asked for."""

    def lease(self, lease_id: str) -> Lease | None: ...

    def leases(self, *, host: str | None, live: bool, limit: int) -> list[Lease]:
        """Leases of `host` (None is all), the highest token first."""

    def live_by_host(self) -> dict[str, list[Lease]]:
        """The live leases of each host that has any, the highest token first."""

    def keep_lease(self, lease: Lease, *, is_new: bool = False) -> None: ...

    def request(self, request_id: str) -> Request | None: ...

    def requests_named(self, request_id: str, key: str) -> list[Request]:
        """The requests of an id, or of an idempotency key, of any user; the empty key
        is nobody's.
        """

    def queued(self, host: str) -> list[Request]: ...

    def queued_beside(self, host: str) -> tuple[list[Request], Mapping[str, int]]:
        """The queued requests of a host, and how many those of each user are on all
        other hosts.
        """

    def all_queued(self) -> list[Request]:
        """The queued requests of all hosts."""

    def keep_request(self, request: Request, *, is_new: bool = False) -> None: ...

    def hosts(self) -> list[HostIdentity]: ...

    def keep_host(self, host: HostIdentity, *, is_new: bool = False) -> None:
        """Write a machine down under its id and name."""

    def remove_host(self, host_id: str) -> None:
        """Forget a machine, under all its names."""

    def host_reports(self) -> list[HostReport]: ...

    def keep_host_report(self, report: HostReport, *, is_new: bool = False) -> None:
        """Write a report down in place of the last of its host and allowance."""

    def remove_host_reports(self, host: str) -> None: ...

    def device_faults(self, host: str) -> list[DeviceFault]: ...

    def keep_device_fault(self, fault: DeviceFault) -> None:
        """Write a fault down that is not there yet."""

    def remove_device_faults(self, host: str, device_id: str) -> None: ...

    def drains(self) -> tuple[Drain, ...]:
        """The drains of all hosts; read with the counters."""

    def keep_drains(self, drains: tuple[Drain, ...]) -> None:
        """Write them all down."""

    def accounts(self) -> list[Account]: ...

    def account(self, user: str, queue: str) -> Account | None: ...

    def keep_account(self, account: Account, *, is_new: bool = False) -> None: ...

    def reservation(self, reservation_id: str) -> Reservation | None: ...

    def reservations(self, host: str, now: float) -> list[Reservation]:
        """The reservations of `host` that are running or have a window to come."""

    def add_reservation(self, reservation: Reservation) -> None: ...

    def remove_reservation(self, reservation_id: str) -> None: ...

    def meters(self, host: str) -> list[MeterState]: ...

    def keep_meter(self, meter: MeterState, *, is_new: bool = False) -> None: ...

    def charge(self, key: Key) -> UsageRecord | None: ...

    def charges(
        self,
        since: int,
        until: int,
        *,
        user: str | None,
        label: str | None,
        owner: str | None,
    ) -> list[UsageRecord]:
        """Charges of the days from `since` to `until`, in any order; None is
        all users'.
        """

    def old_cells(self, before: int, limit: int) -> list[UsageRecord]:
        """Charges of cells before that day."""

    def keep_charge(self, charge: UsageRecord, *, is_new: bool = False) -> None: ...

    def remove_charge(self, key: Key) -> None: ...

    def span(self, span: CellInterval) -> CellInterval | None:
        """The span of that owner, cell and beginning."""

    def keep_span(self, span: CellInterval, *, is_new: bool = False) -> None: ...

    def spans(self, host: str, since: float) -> list[CellInterval]:
        """The spans of a host that end after `since` or have no end."""

    def remove_spans(self, host: str, ended_before: float, begun_before: float) -> None:
        """Drop those that ended before a time, and those without an end that began
        before another.
        """

    def append(self, event: Event) -> None:
        """Write an event at the end of the history, which gives it its sequence."""

    def events(self, after: int, limit: int) -> list[Event]: ...

    def event_rows(self, after: int, limit: int) -> list[Row]:
        """Events as they are kept."""

    def told_events(
        self, after: int, limit: int, *, since: float, user: str | None
    ) -> list[Row]:
        """Events as they are kept, from a time on, and of a user: what that user did,
        and what happened to that user's.
        """

    def old_keys(
        self, kind: RecordKind, before: float, now: float, limit: int
    ) -> Sequence[RecordKey]:
        """Keys of the records of a kind that are older than a time, and that nothing in
        the ledger needs.
        """

    def kept_rows(self, kind: RecordKind, keys: Iterable[RecordKey]) -> list[Row]:
        """Records as they are kept; those that are not there are left out."""

    def remove_rows(self, kind: RecordKind, keys: Iterable[RecordKey]) -> None:
        """Drop records; those of cells are dropped by the books."""

    def segments(self) -> list[ArchiveSegment]:
        """The catalogue of the archive, in order."""

    def keep_segment(
        self, segment: ArchiveSegment, *, is_new: bool = False
    ) -> None: ...

    def chained_after(self) -> int:
        """The last event of a schema that kept no digests; 0 for none."""


def find_lease(rows: Rows, lease_id: str) -> Lease:
    """The lease of that id. Raises `LeaseNotFound`."""
    lease = rows.lease(lease_id) if is_id(lease_id) else None
    if lease is None:
        raise LeaseNotFound(
            f"lease_id: there is no lease {lease_id!r}", field="lease_id"
        )
    return lease


def find_request(rows: Rows, request_id: str) -> Request:
    """The request of that id. Raises `LeaseNotFound`."""
    request = rows.request(request_id) if is_id(request_id) else None
    if request is None:
        raise LeaseNotFound(
            f"request_id: there is no request {request_id!r}", field="request_id"
        )
    return request


def find_reservation(rows: Rows, reservation_id: str) -> Reservation:
    """The reservation of that id. Raises `LeaseNotFound`."""
    reservation = rows.reservation(reservation_id) if is_id(reservation_id) else None
    if reservation is None:
        raise LeaseNotFound(
            f"reservation_id: there is no reservation {reservation_id!r}",
            field="reservation_id",
        )
    return reservation


def guarded_lease(rows: Rows, lease_id: str, token: int) -> Lease:
    """The lease of that id, live or ended. Raises `StaleToken` unless `token` is its
    own.
    """
    lease = find_lease(rows, lease_id)
    if lease.token != token:
        raise StaleToken(
            f"lease {lease_id} has moved on: token {token} may change nothing",
            lease_id=lease_id,
        )
    return lease


def live_lease(rows: Rows, lease_id: str, token: int) -> Lease:
    """The live lease of that id and token. Raises `LeaseLost` when it has ended."""
    lease = guarded_lease(rows, lease_id, token)
    refuse_ended(lease)
    return lease


def refuse_ended(lease: Lease) -> None:
    """Raise `LeaseLost` when `lease` has ended."""
    if lease.outcome is not None:
        outcome = lease.outcome
        message = f"lease {lease.id} has ended ({outcome.label}); request a new one"
        raise LeaseLost(message, lease_id=lease.id, outcome=outcome.value)


def lease_event(
    kind: EventKind,
    lease: Lease,
    at: float,
    detail: str = "",
    *,
    was: Lease | None = None,
) -> Event:
    """What happened to `lease`, ready to be written down.

    Args:
        was: the lease before; itself where it has not changed.
    """
    before, after = ("", "") if was is lease else lease_changes(was, lease)
    return Event(
        kind=kind,
        at=at,
        request_id=lease.request_id,
        lease_id=lease.id,
        detail=detail,
        owner=lease.holder.user,
        before=before,
        after=after,
    )


def request_event(
    kind: EventKind, request: Request, at: float, *, was: Request | None
) -> Event:
    """What happened to `request`, likewise; `was` is None where it is new."""
    before, after = request_changes(was, request)
    return Event(
        kind=kind,
        at=at,
        request_id=request.id,
        detail=request.reason,
        owner=request.holder.user,
        before=before,
        after=after,
    )


def keep_conditions(rows: Rows, lease: Lease, update: ConditionUpdate) -> Lease:
    """Change the conditions of a lease as it is in this transaction; the lease then."""
    conditions = update.apply(lease.conditions)
    if conditions == lease.conditions:
        return lease
    changed = replace(lease, conditions=conditions)
    rows.keep_lease(changed)
    return changed


def is_id(text: str) -> bool:
    """Whether an id could be ours; databases choke on lone surrogates and NUL."""
    return text.isascii() and text.isprintable()
