"""Amounts as people write them: bytes and durations."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from jupyter_aistack.exceptions import InvalidRequest

KIB, MIB, GIB, TIB = (1 << shift for shift in (10, 20, 30, 40))
_BYTES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "b": 1}
_BYTES |= {"kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB}
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_AMOUNT = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([a-z]*)", re.ASCII)
MAX_SECONDS = 366 * 86400


_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([a-z]*)", re.ASCII)


_BINARY_UNITS = (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB))


def parse_bytes(text: str, *, field: str = "memory") -> int:
    """Bytes in a text such as ``20GiB``, ``512MB`` or ``1.5 gib``, rounded down.

    Raises:
        InvalidRequest: naming `field`.
    """
    match = _AMOUNT.fullmatch(text.strip().lower())
    if match is None or match[2] not in _BYTES:
        raise InvalidRequest(
            f"{field}: {text!r} is not an amount of memory; write 20GiB, 512MiB or 1.5TB",
            field=field,
        )
    whole, _, decimals = match[1].partition(".")
    unit = _BYTES[match[2]]
    digits = int(whole + decimals)
    scale = 10 ** len(decimals)
    return digits * unit // int(scale)


def parse_duration(text: str | float, *, field: str = "duration") -> float:
    """Seconds in a text such as ``2h``, ``30min``, ``1h30m`` or ``90``.

    Raises:
        InvalidRequest: naming `field`; durations are positive and at most a year.
    """
    seconds = _sum_of_parts(text) if isinstance(text, str) else text

    # A comparison with NaN is false, so NaN is refused as well.
    if seconds is None or not 0 < seconds <= MAX_SECONDS:
        raise InvalidRequest(
            f"{field}: {text!r} is not a duration; write 30min, 2h, 1h30m or seconds, at most a year",
            field=field,
        )
    return float(seconds)


def _sum_of_parts(text: str) -> float | None:
    """The seconds of numbers with units, added up; None where the text is no such
    sum.
    """
    text = text.strip().lower()
    parts = _PART.findall(text)
    is_whole_text = "".join(number + unit for number, unit in parts) == text
    if not parts or not is_whole_text:
        return None

    seconds = 0.0
    for number, unit in parts:
        if unit not in _SECONDS:
            return None
        seconds += float(number) * _SECONDS[unit]
    return seconds


def format_bytes(amount: int | float) -> str:
    """An amount of memory for people, in binary units: ``19.5 GiB``."""
    for unit, size in _BINARY_UNITS:
        if abs(amount) >= size:
            return f"{amount / size:.1f} {unit}"
    return f"{int(amount)} B"


def exact_bytes(amount: int) -> str:
    """An amount of memory that :func:`parse_bytes` reads back exactly, in the largest
    unit that divides it.
    """
    for unit, size in _BINARY_UNITS:
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return f"{amount}B"


def format_share(fraction: Fraction | str) -> str:
    """A share of a device for people: ``1/4``, or in percent where that is no short
    fraction.
    """
    text = str(fraction)
    if len(text) <= 5:
        return text
    return f"{float(Fraction(text)):.1%}"


def format_duration(seconds: float) -> str:
    """A duration for people, two units at most: ``2 h 5 min``."""
    total = max(0, round(seconds))
    for unit, size, lesser, lesser_size in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if total < size:
            continue
        text = f"{total // size} {unit}"
        rest = total % size // lesser_size
        if rest:
            return f"{text} {rest} {lesser}"
        return text
    return f"{total} s"


def format_about(seconds: float) -> str:
    """A duration that is only roughly known: rounded up to minutes, or to ten seconds
    where there are few.

    It says the same for a while, so that those who are shown it are not shown something else every
    second.
    """
    step = 60 if seconds > 60 else 10
    left = max(0.0, seconds)
    steps = math.ceil(left / step)
    return format_duration(steps * step)
