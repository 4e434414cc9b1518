"""Traces of notebook tasks: reading them, and putting together the sessions that they do
not tell.

A row is one task. Rows come session by session in the order of time; where a row begins
before the row above it has ended, a new session begins (or where the column ``session``
changes, if the trace has that column).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .csv_io import Row, rows

MINUTE = 60.0
HOUR = 3600.0
COLUMNS = ("num_gpu", "submit_time", "duration")
MOST_MINUTES = 10**8
"""Nothing takes longer; a larger number is a slip of the pen."""
P90 = 1.2815515655446004
"""How many standard deviations above the median the 90th percentile of a normal
distribution lies.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task as the trace tells it.

    Attributes:
        row: its line in the file.
        gpus: how many it uses.
        submitted_at, seconds: when it came and how long it ran.
        session: what the column ``session`` says; empty without that column.
    """

    row: int
    gpus: int
    submitted_at: float
    seconds: float
    session: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One open notebook.

    Attributes:
        number: its place in the trace, from 0.
        row: the line of its first task; 0 for a notebook without tasks.
        gpus: what it has reserved, the most any of its tasks uses.
        memory_bytes: what its state takes on each of its GPUs.
        opens_at: when it is opened.
        tail_seconds: how long it stays open after its last task; without tasks, how
            long it is open.
        tasks: in the order of time.
        thinks: seconds between the end of the task before (for the first: the opening)
            and each task.
    """

    number: int
    row: int
    gpus: int
    memory_bytes: int
    opens_at: float
    tail_seconds: float
    tasks: tuple[Task, ...]
    thinks: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class SessionModel:
    """What a trace does not tell of its sessions, and how it is made up. All of it is
    drawn from `seed`.

    Attributes:
        median_bytes, p90_bytes: of the state on each GPU: a lognormal distribution.
        memory_scale: all sizes are multiplied by this, to see what depends on them.
        most_bytes: no state is larger than this.
        head_seconds: mean time a session is open before its first task (exponential).
        tail_seconds: how long it stays open after its last.
        longest_seconds: tasks above this are left out; infinity to keep them all.
        jitter_seconds: times of submission are spread over this much, for a trace whose
            times were rounded down.
        unused_share: sessions without any task are added until they are this share of
            all GPU-hours reserved.
        seed: of all that is drawn.
    """

    median_bytes: float = 8e9
    p90_bytes: float = 31e9
    memory_scale: float = 1.0
    most_bytes: float = math.inf
    head_seconds: float = 30 * MINUTE
    tail_seconds: float = 30 * MINUTE
    longest_seconds: float = 24 * HOUR
    jitter_seconds: float = 60.0
    unused_share: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Sessions to replay, and the tasks that were left out for their length.

    Attributes:
        sessions: in the order of the file.
        long_tasks: those left out.
        read: how many tasks the file has.
    """

    sessions: tuple[Session, ...]
    long_tasks: tuple[Task, ...]
    read: int

    @property
    def tasks(self) -> int:
        return sum(len(session.tasks) for session in self.sessions)


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a CSV file with the columns ``num_gpu``, ``submit_time`` and
    ``duration``, both in minutes.

    Raises:
        InvalidRequest: naming file, row and column.
    """
    return [_task(row) for row in rows(path, COLUMNS)]


def _task(row: Row) -> Task:
    gpus = row.number("num_gpu", least=1, most=1024)
    submitted_at = _minutes(row, "submit_time") * MINUTE
    seconds = _minutes(row, "duration") * MINUTE
    session = row.cells.get("session", "").strip()
    return Task(
        row=row.line,
        gpus=gpus,
        submitted_at=submitted_at,
        seconds=seconds,
        session=session,
    )


def _minutes(row: Row, column: str) -> float:
    try:
        value = float(row.cells[column])
    except ValueError:
        value = math.nan
    if not 0 <= value <= MOST_MINUTES:
        raise row.fault(
            column,
            f"is not allowed; it must be a number of minutes from 0 to {MOST_MINUTES}",
        )
    return value


def split_sessions(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    """Tasks, in the order of the file, by session."""
    group: list[Task] = []
    for task in tasks:
        if group and _begins_session(task, group[-1]):
            yield group
            group = []
        group.append(task)
    if group:
        yield group


def _begins_session(task: Task, before: Task) -> bool:
    """Whether a task is of another session than the task above it in the file."""
    if task.session or before.session:
        return task.session != before.session
    return task.submitted_at < before.submitted_at + before.seconds


def make_trace(tasks: Sequence[Task], model: SessionModel) -> Trace:
    """Sessions of `tasks`, with what the trace does not tell drawn as `model` says."""
    long_tasks = tuple(task for task in tasks if task.seconds > model.longest_seconds)
    sessions: list[Session] = []
    for group in split_sessions(tasks):
        kept = [task for task in group if task.seconds <= model.longest_seconds]
        if kept:
            sessions.append(_session(len(sessions), kept, model))
    sessions += _unused(sessions, model)
    return Trace(sessions=tuple(sessions), long_tasks=long_tasks, read=len(tasks))


def _session(number: int, tasks: Sequence[Task], model: SessionModel) -> Session:
    draw = random.Random(f"{model.seed} session {number}")
    starts = [
        task.submitted_at + draw.random() * model.jitter_seconds for task in tasks
    ]
    head = draw.expovariate(1 / model.head_seconds) if model.head_seconds else 0.0
    opens_at = max(0.0, starts[0] - head)
    thinks = []
    free_at = opens_at
    for start, task in zip(starts, tasks, strict=True):
        thinks.append(max(0.0, start - free_at))
        free_at = max(start, free_at) + task.seconds
    return Session(
        number=number,
        row=tasks[0].row,
        gpus=max(task.gpus for task in tasks),
        memory_bytes=_memory(draw, model),
        opens_at=opens_at,
        tail_seconds=model.tail_seconds,
        tasks=tuple(tasks),
        thinks=tuple(thinks),
    )


def _memory(draw: random.Random, model: SessionModel) -> int:
    sigma = math.log(model.p90_bytes / model.median_bytes) / P90
    size = model.median_bytes * math.exp(draw.gauss(0.0, sigma)) * model.memory_scale
    return int(min(size, model.most_bytes))


def reserved_seconds(session: Session) -> float:
    """How long it is open when no task has to wait."""
    return (
        sum(session.thinks)
        + sum(task.seconds for task in session.tasks)
        + session.tail_seconds
    )


def _unused(sessions: Sequence[Session], model: SessionModel) -> list[Session]:
    """Sessions without a task: GPUs and lengths as those of the others, at any time of
    the trace.
    """
    if not sessions or not model.unused_share:
        return []
    draw = random.Random(f"{model.seed} unused")
    used = sum(session.gpus * reserved_seconds(session) for session in sessions)
    missing = used * model.unused_share / (1 - model.unused_share)
    until = max(session.opens_at + reserved_seconds(session) for session in sessions)
    added: list[Session] = []
    while missing > 0:
        like = draw.choice(sessions)
        seconds = min(reserved_seconds(like), missing / like.gpus)
        missing -= like.gpus * seconds
        added.append(
            Session(
                number=len(sessions) + len(added),
                row=0,
                gpus=like.gpus,
                memory_bytes=0,
                opens_at=draw.uniform(0.0, max(0.0, until - seconds)),
                tail_seconds=seconds,
                tasks=(),
                thinks=(),
            )
        )
    return added
