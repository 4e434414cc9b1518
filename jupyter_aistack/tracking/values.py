"""What every store can keep: names, numbers and texts, and how often a point may
repeat.
"""

from __future__ import annotations

import math
import operator
import posixpath
import re
import reprlib
import time
from dataclasses import dataclass, field
from typing import Any

from jupyter_aistack.exceptions import InvalidRequest

from .store import MetricPoint

MAX_EXPERIMENT = 500
MAX_PARAM = 6000
MAX_TAG = 8000
"""Characters a param and a tag may have; longer values are cut."""

MAX_STEP = 2**63
TRUTHS = ("bool", "torch.bool")
NO_NUMBERS = ("complex", "datetime", "timedelta", "<U", "|S", "<M", "<m")
"""How the names of types begin whose values are no numbers, in numpy and torch."""
_NAME = re.compile(r"[\w\-. :/]{1,250}")


def checked_experiment(name: Any) -> str:
    """The name of an experiment. Raises `InvalidRequest` for what is none."""
    is_name = isinstance(name, str) and bool(name.strip())
    if not is_name or len(name) > MAX_EXPERIMENT:
        raise InvalidRequest(
            f"experiment: expected a name of 1 to {MAX_EXPERIMENT} characters, got {_shown(name)}",
            field="experiment",
        )
    return str(name)


def checked_name(kind: str, name: Any) -> str:
    """The name of a metric, param, tag or data set, if every store can keep it.

    Raises:
        InvalidRequest: it cannot; `kind` says of what it is the name.
    """
    is_spelled_well = isinstance(name, str) and _NAME.fullmatch(name) is not None
    if is_spelled_well and _is_plain_path(name):
        return str(name)
    raise InvalidRequest(
        f"{kind}: {name!r} is not a name; use up to 250 letters, digits, and _ - . : / or spaces, without empty, "
        "leading or dotted path parts",
        field=kind,
    )


def _is_plain_path(name: str) -> bool:
    """Stores in files make a path of a name: it must not lead anywhere else."""
    return posixpath.normpath(name) == name and name[0] not in "/."


def checked_step(step: Any) -> int:
    """A place on a curve: a whole number of any library, also as an array or tensor
    without dimensions.

    Raises:
        InvalidRequest: it is none, or too large.
    """
    place = None if _is_truth(step) else _index(step)
    if place is None or not -MAX_STEP < place < MAX_STEP:
        raise InvalidRequest(
            f"step: expected a whole number, got {_shown(step)}", field="step"
        )
    return place


def _index(value: Any) -> int | None:
    try:
        return operator.index(value)
    except Exception:  # any library may refuse in any way
        return None


def _is_truth(value: Any) -> bool:
    """Whether it is true or false, of any library."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in TRUTHS


def checked_number(name: str, value: Any) -> float:
    """The value of a metric: a number, or an array or tensor of one number. True and
    false count as 1 and 0.

    Raises:
        InvalidRequest: it is neither; the metric is named.
    """
    single = None if _is_no_number(value) else _single(value)
    number = None if _is_no_number(single) else _float(single)
    if number is None:
        raise InvalidRequest(
            f"metric {name}: expected a number, got {_shown(value)}", field=name
        )
    return number


def _is_no_number(value: Any) -> bool:
    """Texts, complex numbers, times and masked values, some of which Python would take
    for one.
    """
    if isinstance(value, (str, bytes, bytearray, complex)) or _is_masked(value):
        return True
    kind = str(getattr(value, "dtype", ""))
    return kind.removeprefix("torch.").startswith(NO_NUMBERS)


def _is_masked(value: Any) -> bool:
    """Whether numpy has masked it: it is unknown, and what lies below is no value."""
    mask = getattr(value, "mask", None)
    any_masked = getattr(mask, "any", None)
    return callable(any_masked) and bool(any_masked())


def _single(value: Any) -> Any:
    """The only element of an array or tensor; anything else as it is."""
    # A gradient that is only read must not be warned of.
    detach = getattr(value, "detach", None)
    if callable(detach):
        value = detach()
    item = getattr(value, "item", None)
    if not callable(item):
        return value
    try:
        return item()
    except Exception:
        return None  # more elements than one, or none


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # any library may refuse in any way
        return None


def _shown(value: Any) -> str:
    """A refused value, for people: short, and never a whole array."""
    is_plain = value is None or isinstance(value, (bool, int, float, str, bytes))
    if is_plain:
        return reprlib.repr(value)
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"{kind} of shape {tuple(shape)}" if isinstance(shape, tuple) else kind


def shortened(value: Any, most: int) -> str:
    """A value as text of at most so many characters."""
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


@dataclass(kw_only=True)
class MetricSeries:
    """The points of one metric as far as the next point depends on them.

    Attributes:
        name: the metric.
    """

    name: str
    _step: int = field(default=-1, init=False)
    _timestamp_ms: int = field(default=0, init=False)
    _keys: set[tuple[int, float | None]] = field(default_factory=set, init=False)
    """Step and value of the points with that time stamp."""

    def next_point(self, step: Any, value: float) -> MetricPoint:
        """The next point, now.

        Args:
            step: its place on the curve; None for the step after the last.
            value: any float.
        """
        place = self._step + 1 if step is None else checked_step(step)
        self._step = place
        stamp = self._stamp((place, None if math.isnan(value) else value))
        return MetricPoint(name=self.name, value=value, timestamp_ms=stamp, step=place)

    def _stamp(self, key: tuple[int, float | None]) -> int:
        """Now in milliseconds, or one more where the store would take this point for a
        point it has already.
        """
        now = time.time_ns() // 1_000_000
        if now <= self._timestamp_ms:
            now = self._timestamp_ms + (key in self._keys)
        if now != self._timestamp_ms:
            self._keys = set()
        self._keys.add(key)
        self._timestamp_ms = now
        return now
