"""A discrete-event replay: notebooks open, run task after task and close, on a clock
that jumps from event to event.

It is closed: a user thinks for as long as the trace says after each task has ended,
however long that was delayed.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request

from .metrics import Meter
from .trace import Session, Task

Event = Callable[[Any, float], None]
PROGRESS_TASKS = 1000


class Notebook:
    """An open session as it stands.

    Attributes:
        session: what it is.
        done: how many of its tasks have ended.
        submitted_at: when the present task was submitted.
        is_waiting: the present task has been submitted and holds nothing to run on yet.
        is_running: the present task has what it needs; it runs, or starts as soon as
            its state is there.
        request, lease: what it has requested and holds; None for nothing.
        slices: what it holds.
        host: where it is; empty for nowhere.
        is_watched: a check whether it is idle is due.
        has_state: it has run a task, so that there is something on its GPUs.
    """

    __slots__ = (
        "done",
        "has_state",
        "host",
        "is_running",
        "is_waiting",
        "is_watched",
        "lease",
        "request",
        "session",
        "slices",
        "submitted_at",
    )

    def __init__(self, session: Session) -> None:
        self.session = session
        self.done = 0
        self.submitted_at = 0.0
        self.is_waiting = False
        self.is_running = False
        self.is_watched = False
        self.has_state = False
        self.request: Request | None = None
        self.lease: Lease | None = None
        self.slices: tuple[Slice, ...] = ()
        self.host = ""

    @property
    def task(self) -> Task:
        """The present task."""
        return self.session.tasks[self.done]

    @property
    def state_bytes(self) -> int:
        """What its state takes on each GPU now."""
        return self.session.memory_bytes if self.has_state else 0


class EventQueue:
    """What happens when; events at the same time come in the order they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Event, Any]] = []
        self._number = 0

    def at(self, when: float, event: Event, what: Any) -> None:
        """`event(what, when)` is called then."""
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, event, what))

    def run(self) -> None:
        """Everything, in order."""
        while self._heap:
            when, _, event, what = heapq.heappop(self._heap)
            event(what, when)


class SessionPolicy(ABC):
    """Who may run when, and what is held meanwhile. `replay` calls it; it calls `begin`
    for each task, once.
    """

    name = ""
    uses_memory = True
    """Whether the sizes of states make a difference."""

    events: EventQueue
    meter: Meter
    begin: Callable[[Notebook, float, float], None]
    """``begin(notebook, now, at)``: the present task has its GPUs now and runs from
    `at` on.
    """

    @abstractmethod
    def opened(self, notebook: Notebook, now: float) -> None:
        """A session begins."""

    @abstractmethod
    def submitted(self, notebook: Notebook, now: float) -> None:
        """The present task wants to run."""

    @abstractmethod
    def finished(self, notebook: Notebook, now: float) -> None:
        """The present task has ended."""

    @abstractmethod
    def closed(self, notebook: Notebook, now: float) -> None:
        """A session ends; no task of it is left."""


class Replay:
    """One replay of sessions under one policy.

    Args:
        sessions: what to replay.
        policy: the rules; its `events`, `meter` and `begin` are set here.
        progress: is called now and then with the number of tasks that have ended.
    """

    def __init__(
        self,
        sessions: Iterable[Session],
        policy: SessionPolicy,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.events = EventQueue()
        self.meter = Meter()
        self.policy = policy
        policy.events = self.events
        policy.meter = self.meter
        policy.begin = self._begin
        self.ended = 0
        self._progress = progress
        for session in sessions:
            self.events.at(session.opens_at, self._open, Notebook(session))

    def run(self) -> Meter:
        """Replay everything; what was measured."""
        self.events.run()
        return self.meter

    def _open(self, notebook: Notebook, now: float) -> None:
        self.policy.opened(notebook, now)
        self._go_on(notebook, now)

    def _go_on(self, notebook: Notebook, now: float) -> None:
        session = notebook.session
        if notebook.done < len(session.tasks):
            self.events.at(now + session.thinks[notebook.done], self._submit, notebook)
        else:
            self.events.at(now + session.tail_seconds, self._close, notebook)

    def _submit(self, notebook: Notebook, now: float) -> None:
        notebook.submitted_at = now
        notebook.is_waiting = True
        self.policy.submitted(notebook, now)

    def _begin(self, notebook: Notebook, now: float, at: float) -> None:
        notebook.is_waiting = False
        notebook.is_running = True
        self.meter.delays.append(at - notebook.submitted_at)
        if at > now:
            self.events.at(at, self._start, notebook)
        else:
            self._start(notebook, now)

    def _start(self, notebook: Notebook, now: float) -> None:
        self.meter.running.change(notebook.task.gpus, now)
        self.events.at(now + notebook.task.seconds, self._finish, notebook)

    def _finish(self, notebook: Notebook, now: float) -> None:
        self.meter.running.change(-notebook.task.gpus, now)
        notebook.is_running = False
        notebook.has_state = True
        self.policy.finished(notebook, now)
        notebook.done += 1
        self.ended += 1
        if self._progress is not None and self.ended % PROGRESS_TASKS == 0:
            self._progress(self.ended)
        self._go_on(notebook, now)

    def _close(self, notebook: Notebook, now: float) -> None:
        self.policy.closed(notebook, now)
