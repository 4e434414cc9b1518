"""Archived records that name nobody."""

from __future__ import annotations

import json

import pytest

from jupyter_aistack.core.audit.chain import (
    FACTS,
    NAMES,
    NAMES_DIGEST,
    Link,
    digest,
    follow,
)
from jupyter_aistack.core.audit.pseudonyms import pseudonym, pseudonymized
from jupyter_aistack.core.model.archive import RecordKind

KEY = b"k" * 32
HOLDER = {
    "kind": "kernel",
    "id": "k-1",
    "user": "ann",
    "host": "box",
    "label": "ann/thesis.ipynb",
    "pid": 42,
}


def test_a_person_keeps_a_pseudonym_and_has_another_under_another_key() -> None:
    assert pseudonym(KEY, "ann") == pseudonym(KEY, "ann")
    assert pseudonym(KEY, "ann") != pseudonym(KEY, "bob")
    assert pseudonym(KEY, "ann") != pseudonym(b"other", "ann")
    assert pseudonym(KEY, "ann").startswith("p-")
    assert pseudonym(KEY, "") == ""


@pytest.mark.parametrize("kind", [RecordKind.LEASES, RecordKind.REQUESTS])
def test_a_holder_names_nobody(kind: RecordKind) -> None:
    row = {
        "id": "x-1",
        "holder": json.dumps(HOLDER),
        "conditions": '[{"message": "ann/thesis.ipynb"}]',
        "reason": "ann waits",
        "idempotency_key": "ann-1",
    }
    kept = pseudonymized(kind, row, KEY)
    holder = json.loads(str(kept["holder"]))
    assert holder == {
        "kind": "kernel",
        "id": "k-1",
        "host": "box",
        "user": pseudonym(KEY, "ann"),
    }
    told = "conditions" if kind is RecordKind.LEASES else "reason"
    assert "ann" not in str(kept[told])
    assert kept["id"] == "x-1"


def test_what_cells_cost_names_nobody() -> None:
    row = {"user": "ann", "label": "ann/thesis.ipynb", "owner": "k-1", "day": 9}
    kept = pseudonymized(RecordKind.CELLS, row, KEY)
    assert kept == {
        "user": pseudonym(KEY, "ann"),
        "label": "",
        "owner": "",
        "day": 9,
    }


def event() -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys((*FACTS, *NAMES), "")
    row |= {
        "sequence": 1,
        "at": 5.0,
        "uid": 1000,
        "pid": 42,
        "user": "ann",
        "owner": "bob",
        "command": "python /home/ann/train.py",
        "detail": "for ann",
        "after": '{"state":"active","label":"ann/thesis.ipynb"}',
        "salt": "aa",
    }
    return {**row, "digest": digest(row, "")}


def test_an_event_names_nobody_and_its_chain_still_holds() -> None:
    kept = pseudonymized(RecordKind.EVENTS, event(), KEY)
    assert "ann" not in json.dumps(kept)
    assert "bob" not in json.dumps(kept)
    assert kept["user"] == pseudonym(KEY, "ann")
    assert kept["after"] == '{"state":"active"}'
    assert kept["salt"] == ""
    verdict = follow([kept], Link())
    assert verdict.flaw is None
    assert verdict.pseudonymous == 1


def test_an_event_that_names_nobody_already_stays_as_it_is() -> None:
    kept = pseudonymized(RecordKind.EVENTS, event(), KEY)
    assert pseudonymized(RecordKind.EVENTS, kept, b"another") == kept


def test_an_event_that_was_never_chained_is_not_chained_by_it() -> None:
    kept = pseudonymized(RecordKind.EVENTS, {**event(), "digest": ""}, KEY)
    assert kept[NAMES_DIGEST] == ""


def test_what_cannot_be_read_is_left_out() -> None:
    row = {"holder": "spoilt ann", "reason": "", "idempotency_key": ""}
    kept = pseudonymized(RecordKind.REQUESTS, row, KEY)
    assert json.loads(str(kept["holder"])) == {"user": ""}
