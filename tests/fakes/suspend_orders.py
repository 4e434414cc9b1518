"""What a server tells a kernel of suspension, and what the kernel answers."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]


def residence(phase: str, **more: Any) -> JSON:
    return {"phase": phase, "state_bytes": 8 << 30, "note": "", "asked": "", **more}


def orders(*acts: str) -> JSON:
    results = [{"id": act, "act": act, "kinds": ["cpu"]} for act in acts]
    return {"residence": residence("parking"), "orders": results}
