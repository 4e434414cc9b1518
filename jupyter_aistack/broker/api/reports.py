"""What the ledger says of usage, to those who may know: bills of a kernel, reports by
user and week; in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from jupyter_aistack.broker.charged_totals import ChargedTotals
from jupyter_aistack.broker.host_state import HostState
from jupyter_aistack.broker.usage_meter import UsageMeter
from jupyter_aistack.core.accounting import usage_report
from jupyter_aistack.core.accounting.charges import (
    DAY_SECONDS,
    SYSTEM,
    CellInterval,
    UsageRecord,
    day_of,
)
from jupyter_aistack.core.accounting.usage_report import Rates
from jupyter_aistack.core.model.spec import Spec
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.values import (
    END_OF_TIME,
    flag_field,
    number_field,
    text_field,
)
from jupyter_aistack.core.wire.visibility import Visibility
from jupyter_aistack.exceptions import InvalidRequest, PermissionDenied

from .advice import Advisor, Owner
from .base import Payload
from .caller import Caller

MAX_CELLS = 100
"""Cells of a bill, the most expensive first."""
MAX_INTERVALS = 1000
"""Cells that may be recorded by one call."""
MAX_NAME = 64
LAST_DAY = day_of(END_OF_TIME)


class AccountingAPI:
    """Reads and records usage.

    Args:
        host_state: the ledger, and the devices that advice is about.
        record_usage: has what was used written down; with ``settle=True`` at once.
        usage_meter: knows what this process has charged.
        rates: what energy and devices cost here.

    Attributes:
        rates: as given.
    """

    def __init__(
        self,
        host_state: HostState,
        *,
        record_usage: Callable[..., None],
        usage_meter: UsageMeter,
        rates: Rates,
    ) -> None:
        self.rates = rates
        self._host_state = host_state
        self._ledger = host_state.ledger
        self._record_usage = record_usage
        self._usage_meter = usage_meter
        self._advisor = Advisor(host_state)

    # -- cells -------------------------------------------------------------------------

    def record_cells(self, payload: Payload, caller: Caller) -> JSON:
        """Record when cells of a kernel ran. Their code is not asked for, only a name:
        ``number:hash``.

        Raises:
            InvalidRequest: naming the field.
        """
        cells = _cells(payload)
        intervals = [self._interval(cell, caller) for cell in cells]
        self._ledger.record_cells(intervals)
        return {"noted": len(intervals)}

    def _interval(self, cell: object, caller: Caller) -> CellInterval:
        if not isinstance(cell, Mapping):
            raise InvalidRequest(
                f"cells: expected objects with cell and began_at, got {cell!r}",
                field="cells",
            )
        began_at = number_field(cell, "began_at", most=END_OF_TIME)
        if began_at is None:
            raise InvalidRequest(
                "began_at: say when the cell began, in seconds since the epoch",
                field="began_at",
            )
        return CellInterval(
            host=self._host_state.host,
            user=caller.user,
            owner=caller.owner_id,
            began_at=began_at,
            ended_at=number_field(cell, "ended_at", least=began_at, most=END_OF_TIME),
            cell=text_field(cell, "cell")[:MAX_NAME],
        )

    # -- bills and reports -------------------------------------------------------------

    def bill(self, payload: Payload, owner: Owner) -> JSON:
        """What a kernel (with ``notebook``: its notebook, over all its kernels) has
        used since the day of a moment.
        """
        if flag_field(payload, "settle"):
            self._record_usage(settle=True)
        since = day_of(number_field(payload, "since", most=END_OF_TIME) or 0.0)
        owner_filter = owner.as_filter(by_notebook=flag_field(payload, "notebook"))
        records = _without_system(self._ledger.charges(since, LAST_DAY, **owner_filter))
        by_lease = _grouped_by_lease(records)
        return {
            "label": owner.label,
            "total": self._figures(records),
            "cells": usage_report.cells(records, MAX_CELLS),
            "leases": {lease_id: _sums(own) for lease_id, own in by_lease.items()},
            "weeks": self._lines(records),
            "rates": asdict(self.rates),
        }

    def report(self, payload: Payload, visibility: Visibility) -> JSON:
        """What users have used, by week; the caller's own use unless ``user`` or
        ``all`` asks for more.

        Raises:
            InvalidRequest: naming the field.
            PermissionDenied: names of others are not shown here.
        """
        since, until = _days(payload)
        user = _reported_user(payload, visibility)
        records = [
            _redacted(record, visibility)
            for record in self._ledger.charges(since, until, user=user)
            if user is None or visibility.sees(record.user, record.queue)
        ]
        if user is not None:
            records = _without_system(records)
        return {
            "since": since * DAY_SECONDS,
            "until": min((until + 1) * DAY_SECONDS, END_OF_TIME),
            "lines": self._lines(records),
            "total": self._figures(records),
            "rates": asdict(self.rates),
        }

    def charged(self, visibility: Visibility) -> list[ChargedTotals]:
        """What this process has charged since it started, under the names this caller
        may see.
        """
        return [
            replace(totals, user=_shown_user(totals.user, "", visibility))
            for totals in list(self._usage_meter.charged.values())
        ]

    def _figures(self, records: Sequence[UsageRecord]) -> JSON:
        return asdict(usage_report.figures(records, self.rates))

    def _lines(self, records: Sequence[UsageRecord]) -> list[JSON]:
        return [line.as_dict() for line in usage_report.lines(records, self.rates)]

    # -- advice ------------------------------------------------------------------------

    def advice(self, payload: Payload, owner: Owner) -> JSON:
        """What a notebook should ask for next time; with ``all``, for each of the
        user's notebooks.
        """
        for_all = flag_field(payload, "all")
        advice = (
            self._advisor.for_all(owner.user)
            if for_all
            else [self._advisor.for_owner(owner)]
        )
        return {"advice": [each.as_dict() for each in advice]}

    def advice_on_request(self, spec: Spec, owner: Owner) -> str | None:
        """As `Advisor.on_request`."""
        return self._advisor.on_request(spec, owner)


def _cells(payload: Payload) -> Sequence[object]:
    cells = payload.get("cells")
    if not isinstance(cells, list) or len(cells) > MAX_INTERVALS:
        raise InvalidRequest(
            f"cells: expected a list of at most {MAX_INTERVALS} cells", field="cells"
        )
    return cells


def _without_system(records: Sequence[UsageRecord]) -> list[UsageRecord]:
    """The records that are of a lease, and not of the host itself."""
    return [record for record in records if record.lease_id != SYSTEM]


def _grouped_by_lease(records: Sequence[UsageRecord]) -> dict[str, list[UsageRecord]]:
    groups: dict[str, list[UsageRecord]] = {}
    for record in records:
        groups.setdefault(record.lease_id, []).append(record)
    return groups


def _sums(records: Sequence[UsageRecord]) -> JSON:
    """Totals of a lease. A part of its life is their difference to what they were at
    its start.
    """
    on_gpu = [record for record in records if record.kind != "cpu"]
    return {
        "gpu_seconds": sum(record.seconds for record in on_gpu),
        "metered_seconds": sum(record.metered_seconds for record in on_gpu),
        "energy_joules": sum(record.millijoules for record in on_gpu) / 1000,
        "energy_estimated_joules": sum(
            record.estimated_millijoules for record in on_gpu
        )
        / 1000,
    }


def _redacted(record: UsageRecord, visibility: Visibility) -> UsageRecord:
    """A record under the name this caller may see it by."""
    if record.lease_id == SYSTEM:
        return record
    return replace(record, user=_shown_user(record.user, record.queue, visibility))


def _shown_user(user: str, queue: str, visibility: Visibility) -> str:
    """The name of a user; what is the system's has none."""
    return user and visibility.shown_user(user, queue)


def _reported_user(payload: Payload, visibility: Visibility) -> str | None:
    """The user a report is about; None for all.

    Raises:
        PermissionDenied: names of others are not shown here.
    """
    user = text_field(payload, "user", "")
    sees_others = visibility.sees_names or bool(visibility.queues)
    if user not in ("", visibility.user) and not sees_others:
        raise PermissionDenied(
            "user: what others use is shown to managers, operators and admins only "
            "here; leave it out for your own"
        )
    if flag_field(payload, "all") and not user:
        return None
    return user or visibility.user


def _days(payload: Payload) -> tuple[int, int]:
    """The days a report covers, both included: a week, or from one moment to another;
    all there are by default.
    """
    week = text_field(payload, "week", "")
    if week:
        if payload.get("since") is not None or payload.get("until") is not None:
            raise InvalidRequest(
                "week: give either a week or since and until", field="week"
            )
        return usage_report.days_of_week(week)

    since = number_field(payload, "since", most=END_OF_TIME) or 0.0
    until = number_field(payload, "until", least=since, most=END_OF_TIME)
    if until is None:
        return day_of(since), LAST_DAY
    # The moment itself is outside: midnight must not add the day that begins then.
    return day_of(since), day_of(math.nextafter(until, since))
