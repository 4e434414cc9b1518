"""What was exported as JSON lines can be verified."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jupyter_aistack.core.audit.chain import FlawKind
from jupyter_aistack.core.audit.exported import verify
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.ledger.memory import MemoryLedger


def lines(count: int = 4) -> list[str]:
    """An export, as the command writes it: what has changed is an object."""
    ledger = MemoryLedger()
    for number in range(count):
        after = json.dumps({"number": number}, separators=(",", ":"))
        ledger.record(Event(kind=EventKind.SETTINGS_CHANGED, at=5.0, after=after))
    events: list[dict[str, Any]] = [dict(row) for row in ledger.event_rows()]
    for event in events:
        event["after"] = json.loads(event["after"])
        event["before"] = None
    return [json.dumps(event) for event in events]


def test_an_export_holds() -> None:
    verdict = verify(lines())
    assert verdict.flaw is None
    assert (verdict.count, verdict.link.sequence) == (4, 4)


def test_a_later_part_of_an_export_holds_from_its_first_event_on() -> None:
    verdict = verify(lines()[1:])
    assert verdict.flaw is None
    assert verdict.count == 3


def test_the_first_line_that_does_not_hold_is_named() -> None:
    edited = lines()
    edited[2] = edited[2].replace('"number": 2', '"number": 7')
    flaw = verify(edited).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.sequence) == (FlawKind.EDITED, 3)
    removed = lines()
    del removed[1]
    flaw = verify(removed).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.sequence) == (FlawKind.MISSING, 2)
    swapped = lines()
    swapped[1], swapped[2] = swapped[2], swapped[1]
    assert verify(swapped).flaw is not None


def test_empty_lines_and_events_without_a_digest_are_passed_over() -> None:
    old = json.dumps({"sequence": 0, "digest": ""})
    assert verify([old, "\n", *lines(1)]).count == 1
    assert verify([]).count == 0


@pytest.mark.parametrize(
    ("line", "words"), [("no JSON", "Expecting value"), ("[1]", "is no event")]
)
def test_what_is_no_export_is_refused(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        verify([line])
