"""Is a slice what its holder really got?

Compares what was promised with what a process sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    new_condition,
)
from jupyter_aistack.core.model.units import format_bytes

from .preparation import Expectation

MEMORY_TOLERANCE = 1.02
"""CUDA and NVML count what the driver keeps for itself differently."""

Verdict = tuple[bool | None, Condition | None]
"""Whether a promise is kept, None where that cannot be known; and what the user should
know of it.
"""


class NotEnforcedAction(StrEnum):
    """What becomes of a lease whose process finds more than was granted."""

    WARN = "warn"  # the user is notified, and the lease stays
    REVOKE = "revoke"  # the lease ends as failed


def mismatch(expects: Expectation, seen: Mapping[str, object]) -> str:
    """One sentence naming the first difference, or nothing when all that was promised
    is seen.

    Args:
        expects: what was promised.
        seen: the same keys as a short-lived child of the holder reports them; ``mps``
            is added by the caller that queried the server.
    """
    return next(_differences(expects, seen), "")


def _differences(expects: Expectation, seen: Mapping[str, object]) -> Iterator[str]:
    yield from _exact_differences(expects, seen)
    yield from _memory_differences(expects, seen)

    cores = seen.get("cores")
    most = expects.most_cores
    if most is not None and isinstance(cores, Sequence) and len(cores) > most:
        yield f"the process may run on {len(cores)} CPU cores instead of {most}"

    promised = expects.multiprocessors
    actual = seen.get("multiprocessors")
    if promised is not None and isinstance(actual, int) and actual > promised:
        yield f"the process may use {actual} multiprocessors instead of {promised}"

    if expects.mps and seen.get("mps") is False:
        yield "the process is no client of the MPS server that limits its slice"


def _exact_differences(
    expects: Expectation, seen: Mapping[str, object]
) -> Iterator[str]:
    for key, words in _WORDS.items():
        promised = getattr(expects, key)
        actual = seen.get(key)
        if promised is not None and _plain(promised) != _plain(actual):
            yield (
                f"the process sees {words} {_show(actual)} instead of {_show(promised)}"
            )


def _memory_differences(
    expects: Expectation, seen: Mapping[str, object]
) -> Iterator[str]:
    # Less than was promised is no difference: a limit on the control group shows as a
    # smaller total.
    amounts = (
        ("sees", expects.memory_total, seen.get("memory_total")),
        ("may take", expects.memory_free, seen.get("memory_free")),
    )
    for verb, promised, actual in amounts:
        if promised is None or not isinstance(actual, int):
            continue
        if actual > promised * MEMORY_TOLERANCE:
            yield (
                f"the process {verb} {format_bytes(actual)} of memory "
                f"instead of {format_bytes(promised)}"
            )


def check_enforcement(
    expects: Expectation, seen: Mapping[str, object], now: float
) -> Verdict:
    """What a child's report means for a promise; both as in `mismatch`.

    A child that cannot ask a driver reports ``visible`` as None and the reason as ``problem``.
    No driver shows no device, so a promise of none is kept; whether promised devices
    are there cannot be known then, but a wrong core still can.

    Args:
        now: seconds since the epoch.

    Returns:
        (True, None) when all is as promised, (False, condition) when it is not, (None,
        condition) when it cannot be known.
    """
    if expects.is_empty:
        return not_verified("there is nothing to verify", now)

    is_blind = seen.get("visible") is None
    checked = _without_devices(expects) if is_blind else expects
    # Differences first: where a part cannot be checked, another may be wrong for sure.
    if difference := mismatch(checked, seen):
        return False, new_condition(ConditionKind.NOT_ENFORCED, difference, now)
    if is_blind and expects.visible:
        return not_verified(
            str(seen.get("problem") or "the driver does not answer"), now
        )
    needs_server = expects.mps and expects.visible
    if needs_server and seen.get("mps") is None:
        return not_verified(
            "it is unknown whether the process is a client of its MPS server", now
        )
    return True, None


def not_verified(reason: str, now: float) -> Verdict:
    """The verdict where it cannot be known whether a promise is kept."""
    return None, new_condition(ConditionKind.NOT_VERIFIED, reason, now)


_WORDS = {"visible": "devices", "cores": "CPU cores", "threads": "OMP_NUM_THREADS ="}


def _without_devices(expects: Expectation) -> Expectation:
    """What of a promise can be checked without asking CUDA."""
    return replace(
        expects,
        visible=None,
        memory_total=None,
        memory_free=None,
        multiprocessors=None,
        mps=None,
    )


def _plain(value: object) -> object:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return sorted(map(str, value))
    return value


def _show(value: object) -> str:
    if value is None:
        return "(unset)"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "none"
    return str(value)
