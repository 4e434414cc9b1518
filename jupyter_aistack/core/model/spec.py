"""The SPEC grammar: what a slice is to be, as users type it and as it is planned with.

SPEC, as users type it::

    1/4   0.25        a share of one device
    20GiB             that much device memory on one device
    2                 whole devices
    1/2x2             two halves, on two different devices
    1g.18gb           a MIG profile
    cpu:2  cpu:1/4    cores of the host, or a share of it
    gpu:1/4           a share, and it must be of a GPU

What a GPU alone does not give is added after commas::

    1/4,cpu:8         and eight cores of its host
    1,mem:64GiB       and that much of its host's memory
    1,model:a100|h100 and it must be one of these models
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

from jupyter_aistack.exceptions import InvalidRequest

from .device import DeviceKind
from .units import exact_bytes, parse_bytes

MAX_COUNT = 1024


MAX_DENOMINATOR = 1000


_ALLOWED = (
    "a share (1/4, 0.25), memory (20GiB), whole devices (2), shares on several devices (1/2x2), "
    "a MIG profile (1g.18gb), cpu:2 or gpu:1/4, and after commas cpu:8, mem:64GiB, model:a100|h100"
)


_PROFILE = re.compile(
    r"(?:[1-7]c\.)?[1-7]g\.[1-9]\d*gb(?:\+(?:me|gfx|me\.all)|-me)?", re.ASCII
)


_FRACTION = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)


_DECIMAL = re.compile(r"\d{0,9}\.\d{1,9}", re.ASCII)


_INTEGER = re.compile(r"\d{1,12}", re.ASCII)


_MEMORY = re.compile(r"\d+(?:\.\d+)?[kmgt]i?b", re.ASCII)


_COUNTED = re.compile(r"(.+?)x(\d{1,12})", re.ASCII)


_BYTES = re.compile(r"\d+b")
_CORES = re.compile(r"[1-9]\d{0,3}", re.ASCII)
_MODELS = re.compile(
    r"[a-z0-9][a-z0-9._-]{0,31}(?:\|[a-z0-9][a-z0-9._-]{0,31}){0,15}", re.ASCII
)


class Unit(StrEnum):
    """In which unit the amount of a spec is given."""

    FRACTION = "fraction"
    MEMORY = "memory"
    DEVICES = "devices"
    PROFILE = "profile"
    CORES = "cores"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A parsed SPEC.

    Attributes:
        unit: what `amount` counts.
        amount: share of a device, bytes, number of whole devices, or cores; 1 for a
            profile.
        count: how many slices of that size, each on a device (or MIG instance) of its
            own.
        target: the kind of device insisted on, or None for "a GPU where there is one,
            else the CPU".
        profile: the MIG profile, when `unit` is PROFILE.
        host_cores: cores of the host wanted beside it.
        host_memory_bytes: memory of the host wanted beside it.
        models: device models it may be of, as words of their names in lower case; empty
            for any.
    """

    unit: Unit
    amount: Fraction
    count: int = 1
    target: DeviceKind | None = None
    profile: str = ""
    host_cores: int = 0
    host_memory_bytes: int = 0
    models: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The canonical text; parsing it again gives an equal spec."""
        return self.text

    def __hash__(self) -> int:
        return hash(self.text)

    @cached_property
    def text(self) -> str:
        """The canonical text, worked out once: equal specs have equal texts, and others
        do not, so that a long queue can be sorted by it.
        """
        prefix = ""
        if self.target is not None and self.unit is not Unit.PROFILE:
            prefix = f"{self.target.value}:"
        times = ""
        if self.count > 1:
            times = f"x{self.count}"
        amount = self._amount_text()
        beside = self._beside_text()
        return f"{prefix}{amount}{times}{beside}"

    @property
    def needs_host(self) -> bool:
        """Whether cores or memory of the host are wanted beside the device."""
        return bool(self.host_cores or self.host_memory_bytes)

    def _beside_text(self) -> str:
        parts = []
        if self.host_cores:
            parts.append(f",cpu:{self.host_cores}")
        if self.host_memory_bytes:
            parts.append(f",mem:{exact_bytes(self.host_memory_bytes)}")
        if self.models:
            parts.append(f",model:{'|'.join(self.models)}")
        return "".join(parts)

    def _amount_text(self) -> str:
        if self.unit is Unit.PROFILE:
            return self.profile
        if self.unit is Unit.MEMORY:
            return exact_bytes(self.amount.numerator)
        if self.unit is Unit.DEVICES and self.target is DeviceKind.CPU:
            # The whole CPU: cpu:1 would be one core.
            if self.amount == 1:
                return "1/1"
            return f"1/1x{self.amount}"
        return str(self.amount)


def is_profile(text: str) -> bool:
    """Whether a MIG profile can be asked for by this name."""
    return _PROFILE.fullmatch(text) is not None


def parse_spec(text: str) -> Spec:
    """Read a SPEC as users type it.

    Raises:
        InvalidRequest: naming the field ``spec`` and what is allowed.
    """
    if not isinstance(text, str):
        raise _invalid(repr(text))
    return _parse(text)


@lru_cache(maxsize=4096)
def _parse(text: str) -> Spec:
    body, *beside = text.strip().lower().replace(" ", "").split(",")
    target, body = _split_target(body)
    body, count = _split_count(body)
    spec = _parse_amount(body, count, target)
    if spec is None:
        raise _invalid(repr(text))
    if beside:
        return replace(spec, **_parse_beside(beside, spec))
    return spec


def _parse_beside(parts: list[str], spec: Spec) -> dict[str, Any]:
    """What is wanted of the host and of the model, each at most once."""
    fields: dict[str, Any] = {}
    for part in parts:
        word, _, value = part.partition(":")
        field = _BESIDE.get(word)
        if field is None or not field.pattern.fullmatch(value):
            allowed = "after a comma comes cpu:8, mem:64GiB or model:a100"
            raise _invalid(repr(part), allowed)
        if field.name in fields:
            raise _invalid(repr(part), f"{word} is given twice")
        amount = field.read(value)
        if spec.target is DeviceKind.CPU:
            why = "a slice of the CPU takes nothing beside it; ask for gpu:... or leave it out"
            raise _invalid(repr(part), why)
        fields[field.name] = amount
    return fields


def _parse_amount(body: str, count: int, target: DeviceKind | None) -> Spec | None:
    if _PROFILE.fullmatch(body) and target is not DeviceKind.CPU:
        return Spec(
            unit=Unit.PROFILE,
            amount=Fraction(1),
            count=count,
            target=DeviceKind.GPU,
            profile=body,
        )
    if _MEMORY.fullmatch(body) or _BYTES.fullmatch(body):
        return Spec(
            unit=Unit.MEMORY,
            amount=Fraction(_positive_bytes(body)),
            count=count,
            target=target,
        )
    if _FRACTION.fullmatch(body) or _DECIMAL.fullmatch(body):
        return _parse_share(body, count, target)
    if _INTEGER.fullmatch(body):
        return _parse_whole(int(body), count, target)
    return None


def _parse_share(body: str, count: int, target: DeviceKind | None) -> Spec:
    try:
        share = Fraction(body)
    except ZeroDivisionError:
        raise _invalid(repr(body), "the denominator is zero") from None

    if share == 1:
        return Spec(unit=Unit.DEVICES, amount=Fraction(count), target=target)
    if not 0 < share < 1:
        why = "a share must lie between 0 and 1; whole devices are written 1, 2, ..."
        raise _invalid(repr(body), why)
    if share.denominator > MAX_DENOMINATOR:
        why = f"a share is a multiple of 1/{MAX_DENOMINATOR} or a simple fraction below that"
        raise _invalid(repr(body), why)
    return Spec(unit=Unit.FRACTION, amount=share, count=count, target=target)


def _parse_whole(number: int, count: int, target: DeviceKind | None) -> Spec:
    written = repr(str(number))
    total = number * count
    if number < 1:
        raise _invalid(written, "ask for at least one")
    if total > MAX_COUNT:
        raise _invalid(written, f"at most {MAX_COUNT}")
    unit = Unit.CORES if target is DeviceKind.CPU else Unit.DEVICES
    return Spec(unit=unit, amount=Fraction(total), target=target)


def _split_target(body: str) -> tuple[DeviceKind | None, str]:
    for kind in DeviceKind:
        if body.startswith(f"{kind.value}:"):
            return kind, body[len(kind.value) + 1 :]
    return None, body


def _split_count(body: str) -> tuple[str, int]:
    match = _COUNTED.fullmatch(body)
    if match is None:
        return body, 1
    count = int(match[2])
    if not 1 <= count <= MAX_COUNT:
        why = f"the number after x must lie between 1 and {MAX_COUNT}"
        raise _invalid(repr(body), why)
    return match[1], count


def _positive_bytes(body: str) -> int:
    amount = parse_bytes(body, field="spec")
    if amount < 1:
        raise _invalid(repr(body), "ask for more than zero bytes")
    return amount


MAX_SHOWN = 80
"""Characters of what cannot be understood that an error repeats."""


def _invalid(shown: str, why: str = "") -> InvalidRequest:
    because = f" ({why})" if why else ""
    if len(shown) > MAX_SHOWN:
        shown = f"{shown[:MAX_SHOWN]}..."
    return InvalidRequest(
        f"spec: {shown} is not a slice{because}; allowed are {_ALLOWED}", field="spec"
    )


@dataclass(frozen=True)
class _BesideField:
    """What may come after a comma: the field it sets, its form, and how it is read."""

    name: str
    pattern: re.Pattern[str]
    read: Callable[[str], Any]


_BESIDE = {
    "cpu": _BesideField("host_cores", _CORES, int),
    "mem": _BesideField("host_memory_bytes", _MEMORY, _positive_bytes),
    "model": _BesideField(
        "models", _MODELS, lambda value: tuple(sorted(set(value.split("|"))))
    ),
}
