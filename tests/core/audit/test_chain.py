"""Whatever is done to a kept event, the first that is not as it was is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.audit.chain import (
    FACTS,
    NAMES,
    NAMES_DIGEST,
    FlawKind,
    Link,
    digest,
    follow,
    names_digest,
)

Event = dict[str, Any]


def event(sequence: int, **fields: Any) -> Event:
    empty = dict.fromkeys((*FACTS, *NAMES), "")
    numbers = {"sequence": sequence, "at": 5.0 + sequence, "uid": 1000, "pid": None}
    return {**empty, **numbers, "kind": "LeaseGranted", "salt": "aa", **fields}


def chained(count: int, link: Link | None = None) -> list[Event]:
    events = []
    link = link or Link()
    for _ in range(count):
        sequence = link.sequence + 1
        row = event(sequence, user=f"user-{sequence}")
        row["digest"] = digest(row, link.digest)
        link = Link(sequence=sequence, digest=row["digest"])
        events.append(row)
    return events


def test_what_was_written_holds_to_its_end() -> None:
    events = chained(4)
    verdict = follow(events, Link())
    assert verdict.flaw is None
    assert verdict.count == 4
    assert verdict.link == Link(sequence=4, digest=events[3]["digest"])


def test_pages_of_a_chain_are_one_chain() -> None:
    events = chained(4)
    first = follow(events[:2], Link())
    assert follow(events[2:], first.link).link.digest == events[3]["digest"]


@given(place=st.integers(0, 4), name=st.sampled_from([*FACTS[1:], *NAMES, "salt"]))
def test_an_edited_event_is_named(place: int, name: str) -> None:
    events = chained(5)
    was = events[place][name]
    events[place][name] = was + 1 if isinstance(was, (int, float)) else "changed"
    flaw = follow(events, Link()).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.sequence) == (FlawKind.EDITED, place + 1)


@given(place=st.integers(0, 3))
def test_a_removed_event_is_named(place: int) -> None:
    events = chained(5)
    del events[place]
    flaw = follow(events, Link()).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.sequence) == (FlawKind.MISSING, place + 1)
    assert flaw.message == f"event {place + 1} has been removed"


@given(place=st.integers(0, 3))
def test_a_removed_event_is_named_where_the_rest_is_numbered_anew(place: int) -> None:
    events = chained(5)
    del events[place]
    for sequence, row in enumerate(events, start=1):
        row["sequence"] = sequence
    flaw = follow(events, Link()).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.sequence) == (FlawKind.EDITED, place + 1)


def test_events_in_another_order_are_named() -> None:
    events = chained(5)
    events[1], events[2] = events[2], events[1]
    flaw = follow(events, Link()).flaw
    assert flaw is not None
    assert flaw.sequence == 2
    again = follow([*chained(2), chained(2)[1]], Link()).flaw
    assert again is not None
    assert again.kind is FlawKind.DISORDERED


def test_events_that_have_changed_places_and_kept_their_numbers_are_named() -> None:
    events = chained(5)
    for name in ("user", "kind", "salt", "digest", "at"):
        events[1][name], events[2][name] = events[2][name], events[1][name]
    flaw = follow(events, Link()).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.sequence) == (FlawKind.EDITED, 2)


@pytest.mark.parametrize("lost", ["salt", "digest", "command"])
def test_an_event_without_a_field_is_edited(lost: str) -> None:
    events = chained(2)
    del events[1][lost]
    flaw = follow(events, Link()).flaw
    assert flaw is not None
    assert flaw.kind is FlawKind.EDITED


def test_the_chain_holds_where_names_were_replaced_and_their_hash_was_kept() -> None:
    events = chained(3)
    kept = names_digest(events[1])
    events[1] |= {NAMES_DIGEST: kept, "user": "p-1", "command": "", "salt": ""}
    verdict = follow(events, Link())
    assert verdict.flaw is None
    assert (verdict.count, verdict.pseudonymous) == (3, 1)
    events[1]["kind"] = "LeaseReleased"
    assert follow(events, Link()).flaw is not None


def test_names_cannot_be_guessed_from_their_hash_without_the_salt() -> None:
    assert names_digest(event(1)) != names_digest(event(1, salt="bb"))


def test_a_time_is_the_same_however_a_database_gives_it_back() -> None:
    assert digest(event(1, at=5), "") == digest(event(1, at=5.0), "")
