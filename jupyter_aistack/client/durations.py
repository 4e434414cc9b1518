"""Seconds as users of the client give them: a number, or a text such as ``30min``;
checked where they were typed.
"""

from __future__ import annotations

import numbers
from typing import TypeGuard

from jupyter_aistack.core.model.units import MAX_SECONDS, parse_duration
from jupyter_aistack.exceptions import InvalidRequest

LEAST_LEASE_SECONDS = 1.0
ZEROS = frozenset({"0", "0s"})
"""Texts for not waiting at all."""


def lease_seconds(value: object, *, field: str = "duration") -> float:
    """How long a lease is wanted, or by how much to extend it.

    Raises:
        InvalidRequest: naming `field`; it is at least a second and at most a year.
    """
    seconds = _seconds(value, field)
    if seconds < LEAST_LEASE_SECONDS:
        raise InvalidRequest(
            f"{field}: {value!r} is too short; it is at least 1 second", field=field
        )
    return seconds


def patience_seconds(value: object, *, field: str = "timeout") -> float:
    """How long to wait at most; 0 does not wait at all.

    Raises:
        InvalidRequest: naming `field`.
    """
    if isinstance(value, str) and value.strip() in ZEROS:
        return 0.0
    if _is_number(value) and value == 0:
        return 0.0
    return _seconds(value, field)


def _seconds(value: object, field: str) -> float:
    if isinstance(value, str):
        return parse_duration(value, field=field)
    if _is_number(value) and 0 < value <= MAX_SECONDS:
        return float(value)
    message = f"{field}: {value!r} is not a duration; write 30min, 2h, 1h30m or seconds, at most a year"
    raise InvalidRequest(message, field=field)


def _is_number(value: object) -> TypeGuard[float]:
    """NumPy's numbers too."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
