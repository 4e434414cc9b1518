"""Values as people read them, in a notebook and on the command line alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jupyter_aistack.core.model.condition import ConditionKind, Severity
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.core.model.units import format_bytes, format_duration

KINDS = frozenset(ConditionKind)
UNKNOWN = "n/a"
"""For a value that is not known, so that it never looks like zero."""


def number_text(value: float | None, digits: int) -> str:
    """A number with so many digits after the point."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def bytes_text(value: int | None) -> str:
    """An amount of memory, e.g. ``20.0 GiB``."""
    return UNKNOWN if value is None else format_bytes(value)


def percent_text(share: float | None) -> str:
    """A share of something, e.g. ``40%``."""
    return UNKNOWN if share is None else f"{share:.0%}"


def condition_text(condition: Mapping[str, Any]) -> str:
    """A condition as on the wire, in words: ``near its memory: ...``."""
    label = ConditionKind(condition["kind"]).label
    message = str(condition["message"])
    return f"{label}: {message}" if label else message


def health_text(condition: Mapping[str, Any], now: float) -> str:
    """A condition of a device as on the wire, in words: ``error XidError for 3 min: …``."""
    holds_for = format_duration(now - condition["since"])
    what = f"{condition['severity']} {condition['code']} for {holds_for}"
    return f"{what}: {condition['message']}"


def warnings_text(device: Mapping[str, Any]) -> str:
    """What people should know of the health of a device that can be used, in one line;
    empty for nothing.
    """
    warning = Severity.WARNING.value
    conditions = [each for each in device["conditions"] if each["severity"] == warning]
    return "; ".join(str(condition["message"]) for condition in conditions)


def lease_remarks(lease: Mapping[str, Any], kinds: Iterable[str] = KINDS) -> str:
    """The conditions of a lease of these kinds in one line, the gravest first; empty
    for none.
    """
    wanted = [each for each in lease["conditions"] if each["kind"] in set(kinds)]
    return "; ".join(condition_text(condition) for condition in wanted)


def aligned(rows: Iterable[Sequence[object]], indent: str = "") -> list[str]:
    """Rows as lines, each column as wide as its widest cell."""
    table = [[printable(str(cell)) for cell in row] for row in rows]
    columns = zip(*table, strict=True)
    widths = [max(len(cell) for cell in column) for column in columns]
    return [indent + _line(row, widths) for row in table]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(cell.ljust(width) for cell, width in cells).rstrip()
