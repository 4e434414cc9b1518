"""Values of settings, checked one by one: each reader gives what a value means, or
raises `WrongValue`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from fractions import Fraction
from typing import Any, TypeVar

from jupyter_aistack.core.model.units import parse_bytes, parse_duration
from jupyter_aistack.exceptions import InvalidRequest

C = TypeVar("C", bound=StrEnum)
Reader = Callable[[Any], Any]
"""Gives what a value means, or raises `WrongValue`."""


class WrongValue(Exception):
    """A value that makes no sense; the text reads on after its name."""


def read_setting(name: str, value: Any, read: Reader) -> Any:
    """What the setting `name` means. Raises `InvalidRequest`, which names it."""
    try:
        return read(value)
    except WrongValue as wrong:
        raise InvalidRequest(f"{name}: {wrong}", field=name) from None


def read_choice(kind: type[C], name: str, value: str) -> C:
    """A setting that is one of a few words. Raises `InvalidRequest` naming it and the
    words.
    """
    try:
        return kind(value)
    except ValueError:
        words = ", ".join(member.value for member in kind)
        raise InvalidRequest(
            f"{name}: {value!r} is not one of {words}", field=name
        ) from None


def read_fraction(value: Any) -> Fraction:
    try:
        if isinstance(value, bool):
            raise ValueError
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise WrongValue(
            f'expected a number such as 2 or "1/2", got {value!r}'
        ) from None


def read_amount(value: Any) -> Fraction:
    number = read_fraction(value)
    if number < 0:
        raise WrongValue(f"expected 0 or more, got {value!r}")
    return number


def read_positive(value: Any) -> Fraction:
    number = read_fraction(value)
    if number <= 0:
        raise WrongValue(f"expected a number above 0, got {value!r}")
    return number


def read_share(value: Any) -> Fraction:
    number = read_fraction(value)
    if not 0 <= number <= 1:
        raise WrongValue(f"expected a share from 0 to 1, got {value!r}")
    return number


def read_integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongValue(f"expected a whole number, got {value!r}")
    return value


def read_count(value: Any) -> int:
    number = read_integer(value)
    if number < 0:
        raise WrongValue(f"expected 0 or more, got {value!r}")
    return number


def read_hours(value: Any) -> float:
    return float(read_amount(value))


def read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongValue(f"expected true or false, got {value!r}")
    return value


def or_none(read: Reader) -> Reader:
    return lambda value: None if value is None else read(value)


def read_members(value: Any) -> frozenset[str]:
    is_list = isinstance(value, (list, tuple, set, frozenset))
    if not is_list or not all(map(_is_member, value)):
        raise WrongValue(f'expected a list of logins and "@group" names, got {value!r}')
    return frozenset(value)


def _is_member(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip("@ "))


def read_duration(value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise InvalidRequest
        return parse_duration(value)
    except InvalidRequest:
        raise WrongValue(
            f'expected a duration such as "30min", "2h" or "7d", above 0, got {value!r}'
        ) from None


def read_wait(value: Any) -> float:
    """A duration that may be none at all."""
    is_none = value in (0, "0") and not isinstance(value, bool)
    return 0.0 if is_none else read_duration(value)


def read_bytes(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    try:
        if not isinstance(value, str):
            raise InvalidRequest
        return parse_bytes(value)
    except InvalidRequest:
        raise WrongValue(
            f'expected an amount of memory such as "500MB", got {value!r}'
        ) from None


def as_float(read: Reader) -> Reader:
    return lambda value: float(read(value))
