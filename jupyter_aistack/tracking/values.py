"""What every store can keep: names, numbers and texts, and how often a point may
repeat.
"""

from __future__ import annotations

import math
import numbers
import posixpath
import re
import time
from dataclasses import dataclass, field
from typing import Any

from jupyter_aistack.exceptions import InvalidRequest

from .store import MetricPoint

MAX_PARAM = 6000
MAX_TAG = 8000
"""Characters a param and a tag may have; longer values are cut."""

MAX_STEP = 2**63
_NAME = re.compile(r"[\w\-. :/]{1,250}")


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
    """A place on a curve. Raises `InvalidRequest` for what is no whole number."""
    is_whole = isinstance(step, numbers.Integral) and not isinstance(step, bool)
    if not is_whole or not -MAX_STEP < int(step) < MAX_STEP:
        raise InvalidRequest(
            f"step: expected a whole number, got {step!r}", field="step"
        )
    return int(step)


def checked_number(name: str, value: Any) -> float:
    """The value of a metric: a number, or an array or tensor of one number.

    Raises:
        InvalidRequest: it is neither; the metric is named.
    """
    if isinstance(value, (str, bytes)):
        raise InvalidRequest(
            f"metric {name}: expected a number, got {value!r}", field=name
        )
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"metric {name}: expected a number, got {type(value).__name__}", field=name
        ) from error


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
