"""How the commands show their answers: lines for people, or one JSON object for
programs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from typing import Any

from jupyter_aistack.core.model.printable import printable

JSON = dict[str, Any]
_UNDER_WAY = {"parking": "being suspended", "restoring": "coming back"}
"""By the phase of a device state on the wire."""


def show(options: argparse.Namespace, report: JSON, lines: Iterable[str]) -> None:
    """Print the report as it was asked for."""
    if options.json:
        print(json.dumps(report))
        return
    for line in lines:
        print(printable(line))


def moment(at: float) -> str:
    """A time for people, on this machine's clock: ``Tue 2026-11-24 10:00``."""
    return time.strftime("%a %Y-%m-%d %H:%M", time.localtime(at))


def device_state_text(lease: JSON) -> str:
    """Where a lease's device state is, for people; empty where it is never moved."""
    state = lease.get("residence")
    if state is None:
        return ""
    why = state["why"] or _UNDER_WAY.get(state["phase"], "")
    if not why and state["asked"] == "suspend":
        why = "to be suspended"
    standing = str(state["standing"])
    return f"{standing} ({why})" if why else standing
