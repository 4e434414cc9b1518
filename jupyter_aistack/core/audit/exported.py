"""Events as JSON lines: what an export holds can be verified without the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from .chain import Link, Row, Verdict, follow
from .changes import as_text


def verify(lines: Iterable[str]) -> Verdict:
    """Check the events of an export, from its first chained event on.

    The first event is believed to be behind the event that it says it is behind: what
    came before an export is not in it.

    Raises:
        ValueError: a line is no JSON object.
    """
    rows = chained_rows(lines)
    first = next(rows, None)
    if first is None:
        return Verdict(link=Link())
    before = int(first["sequence"]) - 1
    if before == 0:
        return _counted(follow([first], Link()), rows)
    link = Link(sequence=before + 1, digest=str(first["digest"]))
    return _counted(Verdict(link=link, count=1), rows)


def _counted(first: Verdict, rows: Iterable[Row]) -> Verdict:
    if first.flaw is not None:
        return first
    others = follow(rows, first.link)
    return Verdict(
        link=others.link,
        count=first.count + others.count,
        pseudonymous=first.pseudonymous + others.pseudonymous,
        flaw=others.flaw,
    )


def chained_rows(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events of an export as they were kept, those without a digest left out."""
    for line in lines:
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"{line[:40]!r} is no event")
        if row.get("digest"):
            yield {**row, **_as_kept(row)}


def _as_kept(row: dict[str, Any]) -> dict[str, str]:
    return {name: _text(row.get(name)) for name in ("before", "after")}


def _text(facts: Any) -> str:
    return as_text(facts) if isinstance(facts, dict) else facts or ""
