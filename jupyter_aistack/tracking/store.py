"""The store port: where a run's points end up."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jupyter_aistack.exceptions import TrackingError

if TYPE_CHECKING:
    from .fingerprint import DataFingerprint

# Up to the last @: a password may contain an @.
_PASSWORD = re.compile(r"(\w://[^\s/:@?#]*):[^\s/]*(?=@)")
_QUERY = re.compile(r"(\w://[^\s?'\"]*)\?[^\s'\"#)]*")

MAX_POINTS = 1000
MAX_TEXTS = 100
"""Most params, and most tags, one write may carry."""


class RejectedByStore(TrackingError):
    """The store will never take this; trying again is of no use."""


class RunRejected(RejectedByStore):
    """The store takes nothing more for this run, as when it has been deleted there."""


@dataclass(frozen=True, kw_only=True)
class MetricPoint:
    """One value of a metric.

    Attributes:
        name: the metric.
        value: any float; not-a-number and infinities are kept as the store can.
        timestamp_ms: when it was produced, milliseconds since the epoch.
        step: its place on the curve.
    """

    name: str
    value: float
    timestamp_ms: int
    step: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of the store, such as the upload of an artifact.

    Attributes:
        call: what is called; it raises as :meth:`Store.write` does.
        patience_seconds: how much longer than usual it may take before it counts as
            stuck; asked for by the thread that makes the call.
    """

    call: Callable[[], None]
    patience_seconds: Callable[[], float] = field(default=lambda: 0.0)


@dataclass(kw_only=True)
class Batch:
    """What is written at once: a few entries, or one job."""

    points: list[MetricPoint] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    job: Job | None = None

    def __len__(self) -> int:
        texts = len(self.params) + len(self.tags)
        return len(self.points) + texts + (self.job is not None)


class Store(ABC):
    """One run in a tracking store. Only the writer's thread calls it while the run is
    open.
    """

    run_id: str
    uri: str
    """Where the run is kept."""

    url: str | None = None
    """A page that shows the run; None where no server does."""

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Store a batch, whole. Repeating it changes nothing.

        Raises:
            RejectedByStore: something in it will never be taken.
            RunRejected: nothing more will be taken for this run.
            Exception: it was not stored, and may be when tried again.
        """

    @abstractmethod
    def add_file(self, path: str) -> None:
        """Copy a file or folder to the run. Raises as `write` does."""

    @abstractmethod
    def add_data(self, data: DataFingerprint) -> None:
        """Note which data the run used. Raises as `write` does."""

    @abstractmethod
    def finish(self, status: str, ended_at: float) -> None:
        """Close the run as ``FINISHED``, ``FAILED`` or ``KILLED``, at a moment in
        seconds since the epoch. Raises as `write` does.
        """


def without_secrets(text: str) -> str:
    """`text` with the URLs in it stripped of what may be secret: password and query
    (which can carry a password too).
    """
    return _QUERY.sub(r"\1", _PASSWORD.sub(r"\1", text))


def first_line(error: BaseException) -> str:
    """An error in one line, for a sentence, without the secrets of URLs in it."""
    text = without_secrets(str(error)).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:300]
