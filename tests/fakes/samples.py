"""Samples of what is on the wire."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.paths import DATA

SAMPLES = json.loads((DATA / "wire_samples.json").read_text())["leases"]


def lease(name: str = "l-1", kind: str = "", **more: Any) -> dict[str, Any]:
    """A lease on the wire, with a notice of that kind given a moment ago."""
    now = time.time()
    notice = (
        {"kind": kind, "at": now, "ends_at": now + 60, "request_id": ""}
        if kind
        else None
    )
    return {**SAMPLES[0], "id": name, "notice": notice, **more}
