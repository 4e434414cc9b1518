"""Archived records without the names of people.

A name becomes a pseudonym: the beginning of its HMAC (RFC 2104, SHA-256) with a secret
key. The same person has the same pseudonym in all files of one key; without the key
nobody can find out whose it is, or try whether it is somebody's.

What people have written themselves, and what may name them, is taken out: labels,
reasons, command lines. Ids of kernels, requests and leases stay.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from jupyter_aistack.core.model.archive import RecordKind

from .chain import NAMES_DIGEST, Row, names_digest
from .changes import as_text

DIGITS = 16
"""Hexadecimal digits of a pseudonym: 64 bits, so that no two people share theirs."""
_NAMED_FACTS = frozenset({"label", "name", "created_by", "holder", "pid"})
"""Facts of a change that may name somebody."""


def pseudonym(key: bytes, name: str) -> str:
    """What stands for a name; empty for no name."""
    if not name:
        return ""
    code = hmac.new(key, name.encode("utf-8", "replace"), hashlib.sha256)
    return f"p-{code.hexdigest()[:DIGITS]}"


def pseudonymized(kind: RecordKind, row: Row, key: bytes) -> dict[str, object]:
    """A kept record without names; one that is so already stays as it is."""
    if kind is RecordKind.EVENTS:
        return _event(row, key)
    if kind is RecordKind.CELLS:
        user = pseudonym(key, str(row["user"]))
        return {**row, "user": user, "label": "", "owner": ""}
    changed = {**row, "holder": _holder(str(row["holder"]), key)}
    if kind is RecordKind.LEASES:
        return {**changed, "conditions": "[]"}
    return {**changed, "reason": "", "idempotency_key": ""}


def _event(row: Row, key: bytes) -> dict[str, object]:
    if row.get(NAMES_DIGEST):
        return dict(row)
    return {
        **row,
        NAMES_DIGEST: names_digest(row) if row["digest"] else "",
        "salt": "",
        "owner": pseudonym(key, str(row["owner"])),
        "user": pseudonym(key, str(row["user"])),
        "uid": None,
        "pid": None,
        "command": "",
        "detail": "",
        "before": _without_names(str(row["before"])),
        "after": _without_names(str(row["after"])),
    }


def _without_names(text: str) -> str:
    facts = _object(text)
    return as_text(
        {name: value for name, value in facts.items() if name not in _NAMED_FACTS}
    )


def _holder(text: str, key: bytes) -> str:
    holder = _object(text)
    user = pseudonym(key, str(holder.get("user", "")))
    kept = {
        name: holder[name]
        for name in ("kind", "id", "parent", "host", "host_name")
        if name in holder
    }
    return as_text({**kept, "user": user})


def _object(text: str) -> Mapping[str, Any]:
    """The JSON object of a text; what cannot be read names nobody."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
