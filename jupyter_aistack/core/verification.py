"""Is a slice what its holder really got? Compares what was promised with what a process sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def mismatch(expects: Mapping[str, object], seen: Mapping[str, object]) -> str:
    """One sentence naming the first difference, or nothing when all that was promised is seen.

    Args:
        expects: ``visible`` (device UUIDs), ``cores`` (CPU ids), ``threads`` (OMP_NUM_THREADS); a key that is absent
            is not checked.
        seen: the same keys as a short-lived child of the holder reports them.
    """
    for key, words in _WORDS.items():
        if key in expects and _plain(expects[key]) != _plain(seen.get(key)):
            return f"not enforced: the process sees {words} {_show(seen.get(key))} instead of {_show(expects[key])}"
    return ""


_WORDS = {"visible": "devices", "cores": "CPU cores", "threads": "OMP_NUM_THREADS ="}


def _plain(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _show(value: object) -> str:
    if value is None:
        return "(unset)"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "none"
    return str(value)
