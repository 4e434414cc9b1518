"""Is a slice what its holder really got? Compares what was promised with what a process
sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from jupyter_aistack.core.model.units import format_bytes

MEMORY_TOLERANCE = 1.02
"""CUDA and NVML count what the driver keeps for itself differently."""

FOUND_OTHERWISE = "not enforced:"
NOT_KNOWN = "could not be verified:"
"""How the sentences begin about a promise that is not kept, and about one of which that
cannot be known.
"""


class NotEnforcedAction(StrEnum):
    """What becomes of a lease whose process finds more than was granted."""

    WARN = "warn"  # it is said, and the lease stays
    REVOKE = "revoke"  # the lease ends as failed


def mismatch(expects: Mapping[str, object], seen: Mapping[str, object]) -> str:
    """One sentence naming the first difference, or nothing when all that was promised
    is seen.

    Args:
        expects: ``visible`` (device UUIDs), ``cores`` (CPU ids), ``threads``
            (OMP_NUM_THREADS), ``memory_total`` and ``memory_free`` (bytes of device
            memory, at most), ``multiprocessors`` (at most), ``mps`` (True: the server
            that holds the slice to its size must know the process); a key that is
            absent is not checked.
        seen: the same keys as a short-lived child of the holder reports them; ``mps``
            is added by whoever asked the server.
    """
    return next(
        (f"{FOUND_OTHERWISE} {words}" for words in _differences(expects, seen)), ""
    )


def _differences(
    expects: Mapping[str, object], seen: Mapping[str, object]
) -> Iterator[str]:
    for key, words in _WORDS.items():
        if key in expects and _plain(expects[key]) != _plain(seen.get(key)):
            yield f"the process sees {words} {_show(seen.get(key))} instead of {_show(expects[key])}"
    # A total below what was promised is what a limit on the control group makes of it.
    for key, verb in (("memory_total", "sees"), ("memory_free", "may take")):
        promised = expects.get(key)
        found = seen.get(key)
        if (
            isinstance(promised, int)
            and isinstance(found, int)
            and found > promised * MEMORY_TOLERANCE
        ):
            yield f"the process {verb} {format_bytes(found)} of memory instead of {format_bytes(promised)}"
    promised = expects.get("multiprocessors")
    found = seen.get("multiprocessors")
    if isinstance(promised, int) and isinstance(found, int) and found > promised:
        yield f"the process may use {found} multiprocessors instead of {promised}"
    if expects.get("mps") and seen.get("mps") is False:
        yield "the process is no client of the MPS server that limits its slice"


def judge(
    expects: Mapping[str, object], seen: Mapping[str, object]
) -> tuple[bool | None, str]:
    """What a child's report says of a promise; both as in `mismatch`.

    A child that cannot ask CUDA reports ``visible`` as None and the reason as ``cuda``.
    No driver shows no device, so a promise of none is kept; whether promised devices
    are there cannot be known then, but a wrong core still can.

    Returns:
        (True, "") when all is as promised, (False, sentence) when it is not, (None,
        sentence) when it cannot be known.
    """
    if not expects:
        return None, "there is nothing to verify"
    is_blind = seen.get("visible") is None
    checked = {
        key: value
        for key, value in expects.items()
        if not (is_blind and key in _OF_DEVICES)
    }
    if difference := mismatch(checked, seen):
        return False, difference
    if is_blind and expects.get("visible"):
        return None, f"{NOT_KNOWN} {seen.get('cuda') or 'CUDA does not answer'}"
    if expects.get("mps") and expects.get("visible") and seen.get("mps") is None:
        return (
            None,
            f"{NOT_KNOWN} nobody can say whether the process is a client of its MPS server",
        )
    return True, ""


_WORDS = {"visible": "devices", "cores": "CPU cores", "threads": "OMP_NUM_THREADS ="}
_OF_DEVICES = frozenset(
    {"visible", "memory_total", "memory_free", "multiprocessors", "mps"}
)


def _plain(value: object) -> object:
    return (
        sorted(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else value
    )


def _show(value: object) -> str:
    if value is None:
        return "(unset)"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "none"
    return str(value)
