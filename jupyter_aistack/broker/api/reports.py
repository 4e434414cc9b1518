"""What the books say, to those who may know: bills of a kernel, reports by user and
week, advice; in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.usage_meter import ChargedTotals
from jupyter_aistack.core.accounting import usage_report as figures_of
from jupyter_aistack.core.accounting.charges import (
    DAY_SECONDS,
    SYSTEM,
    CellInterval,
    UsageRecord,
    day_of,
)
from jupyter_aistack.core.accounting.rightsizing import (
    HISTORY_DAYS,
    Advice,
    SizeOption,
    advise,
    sizes,
)
from jupyter_aistack.core.accounting.usage_report import Rates
from jupyter_aistack.core.model.device import Device, DeviceKind
from jupyter_aistack.core.model.spec import Spec, Unit
from jupyter_aistack.core.wire.values import (
    END_OF_TIME,
    flag_field,
    number_field,
    text_field,
)
from jupyter_aistack.core.wire.visibility import ANONYMOUS, Visibility
from jupyter_aistack.exceptions import AIStackError, InvalidRequest, PermissionDenied

JSON = dict[str, Any]
MAX_CELLS = 100
MAX_SPANS = 1000
MAX_NAME = 64
LAST_DAY = day_of(END_OF_TIME)


class AccountingAPI:
    """Reads the books of a broker.

    Args:
        broker: whose.
        rates: what energy and devices cost here.
    """

    def __init__(self, broker: Broker, rates: Rates) -> None:
        self._broker = broker
        self._rates = rates

    def record_cells(self, payload: Mapping[str, Any], owner: str) -> JSON:
        """Note when cells of a kernel ran. Their code is not asked for, only a name:
        ``number:hash``.

        Raises:
            InvalidRequest: naming the field.
        """
        said = payload.get("cells")
        if (
            not isinstance(said, Sequence)
            or isinstance(said, str)
            or len(said) > MAX_SPANS
        ):
            raise InvalidRequest(
                f"cells: expected a list of at most {MAX_SPANS} cells", field="cells"
            )
        spans = [self._span(one, owner) for one in said]
        self._broker.ledger.record_cells(spans)
        return {"noted": len(spans)}

    def _span(self, said: object, owner: str) -> CellInterval:
        if not isinstance(said, Mapping):
            raise InvalidRequest(
                f"cells: expected objects with cell and began_at, got {said!r}",
                field="cells",
            )
        began_at = number_field(said, "began_at", most=END_OF_TIME)
        if began_at is None:
            raise InvalidRequest(
                "began_at: say when the cell began, in seconds since the epoch",
                field="began_at",
            )
        ended_at = number_field(said, "ended_at", least=began_at, most=END_OF_TIME)
        name = text_field(said, "cell")[:MAX_NAME]
        return CellInterval(
            host=self._broker.host,
            owner=owner,
            cell=name,
            began_at=began_at,
            ended_at=ended_at,
        )

    def bill(
        self, payload: Mapping[str, Any], *, user: str, owner: str, label: str
    ) -> JSON:
        """What a kernel (with ``notebook``: its notebook, over all its kernels) has
        used since a moment's day.
        """
        if flag_field(payload, "settle"):
            self._broker.record_usage(settle=True)
        since = day_of(number_field(payload, "since", most=END_OF_TIME) or 0.0)
        is_notebook = flag_field(payload, "notebook") and bool(label)
        whose = (
            {"user": user, "label": label}
            if is_notebook
            else {"user": user, "owner": owner}
        )
        charges = [
            one
            for one in self._broker.ledger.charges(since, LAST_DAY, **whose)
            if one.lease_id != SYSTEM
        ]
        return {
            "label": label,
            "total": self._figures(charges),
            "cells": figures_of.cells(charges, MAX_CELLS),
            "leases": {i: self._lease(own) for i, own in _grouped(charges).items()},
            "weeks": [
                line.as_dict() for line in figures_of.lines(charges, self._rates)
            ],
            "rates": asdict(self._rates),
        }

    def _figures(self, charges: Sequence[UsageRecord]) -> JSON:
        return asdict(figures_of.figures(charges, self._rates))

    def _lease(self, charges: Sequence[UsageRecord]) -> JSON:
        """The sums from which a part of a lease's life is told apart, by taking what
        they were at its start.
        """
        gpus = [one for one in charges if one.kind != "cpu"]
        return {
            "gpu_seconds": sum(one.seconds for one in gpus),
            "metered_seconds": sum(one.metered_seconds for one in gpus),
            "energy_joules": sum(one.millijoules for one in gpus) / 1000,
        }

    def report(self, payload: Mapping[str, Any], sight: Visibility) -> JSON:
        """What users have used, by week; one's own unless ``user`` or ``all`` asks for
        more.

        Raises:
            InvalidRequest: naming the field.
            PermissionDenied: names of others are not shown here.
        """
        since, until = _days(payload)
        wanted = text_field(payload, "user", "")
        is_all = flag_field(payload, "all")
        if wanted not in ("", sight.user) and not sight.sees_names:
            raise PermissionDenied(
                "user: what others use is shown to admins only here; leave it out for your own"
            )
        user = None if is_all and not wanted else wanted or sight.user
        charges = [
            _redacted(one, sight)
            for one in self._broker.ledger.charges(since, until, user=user)
        ]
        if user is not None:
            charges = [one for one in charges if one.lease_id != SYSTEM]
        return {
            "since": since * DAY_SECONDS,
            "until": min((until + 1) * DAY_SECONDS, END_OF_TIME),
            "lines": [
                line.as_dict() for line in figures_of.lines(charges, self._rates)
            ],
            "total": self._figures(charges),
            "rates": asdict(self._rates),
        }

    def charged(self, sight: Visibility) -> list[ChargedTotals]:
        """What this process has charged since it started, under the names this caller
        may see.
        """
        hidden = not sight.sees_names
        counts = list(self._broker.usage_meter.charged.values())
        return [
            replace(one, user=ANONYMOUS)
            if hidden and one.user not in ("", sight.user)
            else one
            for one in counts
        ]

    @property
    def rates(self) -> Rates:
        """What energy and devices cost here."""
        return self._rates

    # -- advice ------------------------------------------------------------------------

    def advice(
        self, payload: Mapping[str, Any], *, user: str, owner: str, label: str
    ) -> JSON:
        """What a notebook should ask for next time; with ``all``, for each of the
        user's notebooks.
        """
        if flag_field(payload, "all"):
            names = sorted(
                {
                    one.label
                    for one in self._history(user=user)
                    if one.label and one.lease_id != SYSTEM
                }
            )
            return {
                "advice": [
                    self._advice(name, self._history(user=user, label=name)).as_dict()
                    for name in names
                ]
            }
        return {
            "advice": [
                self._advice(
                    label or owner, self._history_of(user, owner, label)
                ).as_dict()
            ]
        }

    def line_for(self, spec: Spec, *, user: str, owner: str, label: str) -> str | None:
        """One line for who asks for another size than their notebook has needed; None
        for nothing to say.

        It is never worth a failure of the request.
        """
        with suppress(AIStackError):
            found = self._advice(label or owner, self._history_of(user, owner, label))
            if (
                found.advised
                and found.advised != str(spec)
                and self._is_for(found, spec)
            ):
                return f"this notebook {found.text}"
        return None

    def _is_for(self, found: Advice, spec: Spec) -> bool:
        """Whether the advice says of this spec what it says of the one it was made
        from.
        """
        asked = self._share(spec)
        sizes_here = {
            size.name: size.share
            for device in self._gpus()
            for size in _sizes_of(device)
        }
        advised = sizes_here.get(found.advised)
        if asked is None or advised is None:
            return False
        return advised < asked if found.verdict == "less" else advised > asked

    def _share(self, spec: Spec) -> Fraction | None:
        gpus = self._gpus()
        if spec.unit is Unit.MEMORY and gpus:
            return Fraction(spec.amount) / max(device.memory_bytes for device in gpus)
        if spec.unit is Unit.PROFILE:
            sizes_here = {
                size.name: size.share for device in gpus for size in _sizes_of(device)
            }
            return sizes_here.get(spec.profile)
        return {Unit.FRACTION: spec.amount, Unit.DEVICES: Fraction(1)}.get(spec.unit)

    def _advice(self, label: str, charges: Sequence[UsageRecord]) -> Advice:
        gpus = {device.id: device for device in self._gpus()}
        last = max(charges, key=lambda one: one.day, default=None)
        device = gpus.get(last.device_id) if last is not None else None
        device = device or next(iter(gpus.values()), None)
        if device is None:
            return Advice(
                label=label,
                verdict="unknown",
                asked="",
                text="no advice yet: this host has no GPU",
            )
        return advise(label, charges, _sizes_of(device), device.memory_bytes)

    def _history_of(self, user: str, owner: str, label: str) -> tuple[UsageRecord, ...]:
        return (
            self._history(user=user, label=label)
            if label
            else self._history(user=user, owner=owner)
        )

    def _history(self, **whose: str) -> tuple[UsageRecord, ...]:
        today = day_of(self._broker.clock())
        return self._broker.ledger.charges(today - HISTORY_DAYS, today, **whose)

    def _gpus(self) -> tuple[Device, ...]:
        return self._broker.inventory().of_kind(DeviceKind.GPU)


def _sizes_of(device: Device) -> tuple[SizeOption, ...]:
    if device.is_shareable:
        return sizes(device.memory_bytes)
    found = {instance.profile: instance for instance in device.mig}
    whole = max(device.memory_bytes, 1)
    return tuple(
        SizeOption(
            name=name,
            share=Fraction(one.memory_bytes, whole),
            memory_bytes=one.memory_bytes,
        )
        for name, one in found.items()
    )


def _grouped(charges: Sequence[UsageRecord]) -> dict[str, list[UsageRecord]]:
    found: dict[str, list[UsageRecord]] = {}
    for one in charges:
        found.setdefault(one.lease_id, []).append(one)
    return found


def _redacted(charge: UsageRecord, sight: Visibility) -> UsageRecord:
    """A charge under the name this caller may see it by."""
    is_hidden = (
        not sight.sees_names and charge.user != sight.user and charge.lease_id != SYSTEM
    )
    return replace(charge, user=ANONYMOUS) if is_hidden else charge


def _days(payload: Mapping[str, Any]) -> tuple[int, int]:
    """The days a report covers, both included: a week, or from one moment to another;
    all there are by default.
    """
    week = text_field(payload, "week", "")
    if week:
        if payload.get("since") is not None or payload.get("until") is not None:
            raise InvalidRequest(
                "week: give either a week or since and until", field="week"
            )
        return figures_of.days_of_week(week)
    since = number_field(payload, "since", most=END_OF_TIME) or 0.0
    until = number_field(payload, "until", least=since, most=END_OF_TIME)
    return day_of(since), LAST_DAY if until is None else day_of(
        math.nextafter(until, since)
    )
