"""Verbs about what has happened: the audit trail, its verification, and the archive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jupyter_aistack.broker.audit import AuditPage, AuditPosition
from jupyter_aistack.core.audit.chain import Link, Row
from jupyter_aistack.core.model.archive import RecordKind
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.values import (
    END_OF_TIME,
    flag_field,
    integer_field,
    number_field,
    text_field,
)
from jupyter_aistack.exceptions import InvalidRequest, PermissionDenied

from .base import Payload, Verb, VerbGroup
from .caller import MAX_LABEL, Caller

PAGE = 1000
"""Events of one answer."""


class AuditVerbs(VerbGroup):
    """``audit``, ``audit_verify`` and ``archive``."""

    def verbs(self) -> dict[str, Verb]:
        return {
            "audit": self._audit,
            "audit_verify": self._verify,
            "archive": self._archive,
        }

    def _audit(self, payload: Payload, caller: Caller) -> JSON:
        """A page of events, and after which the next begins; null where there is no
        more.
        """
        counted = {"after": 0, **payload}
        events = self._broker.ledger.told_events(
            integer_field(counted, "after"),
            PAGE,
            since=number_field(payload, "since", most=END_OF_TIME) or 0.0,
            user=self._whose(payload, caller),
        )
        is_full = len(events) == PAGE
        return {
            "events": list(map(_shown, events)),
            "after": events[-1]["sequence"] if is_full else None,
        }

    def _whose(self, payload: Payload, caller: Caller) -> str | None:
        """Whose events are told; None for everybody's.

        Raises:
            PermissionDenied: another user's were asked for, and are not for this one.
        """
        user = text_field(payload, "user", "")[:MAX_LABEL]
        if self._access.standing(caller).may("audit", queue=""):
            return user or None
        if user not in ("", caller.user):
            raise PermissionDenied(
                f"what was done by and to {user} is for admins only; {caller.user} may "
                "read what was done by and to them"
            )
        return caller.user

    def _verify(self, payload: Payload, caller: Caller) -> JSON:
        audit = self._broker.history.audit
        page = _page(audit.step(_position(payload)))
        return {**page, "chained_after": audit.chained_after()}

    def _archive(self, payload: Payload, caller: Caller) -> JSON:
        before = number_field(payload, "before", most=END_OF_TIME)
        archiver = self._broker.history.archiver
        if flag_field(payload, "dry_run"):
            return {"counts": _counts(archiver.count(before)), "files": []}
        done = archiver.run(before)
        return {"counts": _counts(done.counts), "files": done.files}


def _counts(counts: Mapping[RecordKind, int]) -> JSON:
    return {kind.value: counts.get(kind, 0) for kind in RecordKind}


def _shown(row: Row) -> JSON:
    """An event on the wire: what has changed is an object, where it is one."""
    changes = {name: _object(str(row[name])) for name in ("before", "after")}
    return {**row, **changes}


def _object(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text  # somebody else has written it


def _page(page: AuditPage) -> JSON:
    flaw = page.verdict.flaw
    position = page.position
    return {
        "position": None if position is None else asdict(position),
        "link": asdict(page.verdict.link),
        "count": page.verdict.count,
        "pseudonymous": page.verdict.pseudonymous,
        "elsewhere": page.elsewhere,
        "flaw": None if flaw is None else {**asdict(flaw), "kind": flaw.kind.value},
    }


def _position(payload: Payload) -> AuditPosition | None:
    told = payload.get("position")
    if told is None:
        return None
    link = told.get("link") if isinstance(told, Mapping) else None
    if not isinstance(link, Mapping):
        raise InvalidRequest(
            "position: expected what the step before has answered, or null",
            field="position",
        )
    return AuditPosition(
        segment=integer_field(told, "segment"),
        link=Link(
            sequence=integer_field(link, "sequence"),
            digest=text_field(link, "digest", ""),
        ),
    )
