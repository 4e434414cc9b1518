"""Is a slice what its holder really got? Compares what was promised with what a process sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .units import format_bytes

MEMORY_TOLERANCE = 1.02
"""CUDA and NVML count what the driver keeps for itself differently."""


def mismatch(expects: Mapping[str, object], seen: Mapping[str, object]) -> str:
    """One sentence naming the first difference, or nothing when all that was promised is seen.

    Args:
        expects: ``visible`` (device UUIDs), ``cores`` (CPU ids), ``threads`` (OMP_NUM_THREADS), ``memory_total`` (bytes
            of device memory, at most); a key that is absent is not checked.
        seen: the same keys as a short-lived child of the holder reports them.
    """
    for key, words in _WORDS.items():
        if key in expects and _plain(expects[key]) != _plain(seen.get(key)):
            return f"not enforced: the process sees {words} {_show(seen.get(key))} instead of {_show(expects[key])}"
    promised, found = expects.get("memory_total"), seen.get("memory_total")
    if isinstance(promised, int) and isinstance(found, int) and found > promised * MEMORY_TOLERANCE:
        return f"not enforced: the process sees {format_bytes(found)} of memory instead of {format_bytes(promised)}"
    return ""


def judge(expects: Mapping[str, object], seen: Mapping[str, object]) -> tuple[bool | None, str]:
    """What a child's report says of a promise; both as in `mismatch`.

    A child that cannot ask CUDA reports ``visible`` as None and the reason as ``cuda``. No driver shows no device, so a
    promise of none is kept; whether promised devices are there cannot be known then, but a wrong core still can.

    Returns:
        (True, "") when all is as promised, (False, sentence) when it is not, (None, sentence) when it cannot be known.
    """
    if not expects:
        return None, "there is nothing to verify"
    is_blind = seen.get("visible") is None
    checked = {key: value for key, value in expects.items() if not (is_blind and key in {"visible", "memory_total"})}
    if difference := mismatch(checked, seen):
        return False, difference
    if is_blind and expects.get("visible"):
        return None, f"could not be verified: {seen.get('cuda') or 'CUDA does not answer'}"
    return True, ""


_WORDS = {"visible": "devices", "cores": "CPU cores", "threads": "OMP_NUM_THREADS ="}


def _plain(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _show(value: object) -> str:
    if value is None:
        return "(unset)"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "none"
    return str(value)
