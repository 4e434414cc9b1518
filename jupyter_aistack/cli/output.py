"""How the commands show what they found: lines for people, or one JSON object for
programs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

JSON = dict[str, Any]
_UNDER_WAY = {"parking": "being suspended", "restoring": "coming back"}


def show(options: argparse.Namespace, report: JSON, lines: Iterable[str]) -> None:
    """Print the report as it was asked for."""
    if options.json:
        print(json.dumps(report))
        return
    for line in lines:
        print(line)


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines, each column as wide as its widest cell."""
    table = [list(row) for row in rows]
    widths = (
        [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
        if table
        else []
    )
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    ]


def moment(at: float) -> str:
    """A time for people, on this machine's clock: ``Tue 2026-11-24 10:00``."""
    return time.strftime("%a %Y-%m-%d %H:%M", time.localtime(at))


def residence_text(lease: JSON) -> str:
    """Where a lease's device state is, for people; empty where it is never moved."""
    home = lease.get("residence")
    if home is None:
        return ""
    why = (
        home["why"]
        or _UNDER_WAY.get(home["phase"], "")
        or ("to be suspended" if home["asked"] == "suspend" else "")
    )
    return str(home["standing"]) + (f" ({why})" if why else "")
