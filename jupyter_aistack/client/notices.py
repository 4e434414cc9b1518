"""Word that a slice will be taken back: said in the notebook in time, and to functions
that save what must be saved.

What is wrong with a slice (not enforced, over its memory, on a GPU that failed) is said
there too.

A thread asks every few seconds while this process holds something. It never raises, and
changes nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, TypeVar

from jupyter_aistack.core.model.condition import Severity
from jupyter_aistack.core.model.lease import NoticeKind
from jupyter_aistack.core.model.request import HolderKind
from jupyter_aistack.core.model.units import format_duration
from jupyter_aistack.core.wire.records import conditions_from_list
from jupyter_aistack.exceptions import AIStackError

JSON = Mapping[str, Any]
Hook = Callable[[dict[str, Any]], object]
H = TypeVar("H", bound=Hook)

ASK_SECONDS = 10.0
"""Between two questions; a notice comes a minute before the end, or five."""

THREAD = "aistack-notices"

_hooks: dict[str, Hook] = {}


def on_notice(function: H) -> H:
    """Have `function` called when a slice of this process is about to be taken back, to
    save what must be saved.

    Also a decorator. It is called once per notice, in a thread of its own beside the
    running cell, with a dict: ``kind`` (``"preempt"`` or ``"idle"``), ``at`` and
    ``ends_at`` (seconds since the epoch), ``seconds`` left, ``lease_id`` and ``spec``.
    What it raises is shown and changes nothing. Giving a function of the same name
    again replaces the first, as when a cell is run twice.
    """
    _hooks[_name(function)] = function
    return function


def forget_notice(function: Hook) -> None:
    """Take back what `on_notice` was given; one that it was never given is no error."""
    for name in [name for name, known in _hooks.items() if known == function]:
        del _hooks[name]


def _name(function: Hook) -> str:
    """What tells a function from others; one that was written with ``def`` is the same
    again when its cell is.
    """
    name = getattr(function, "__qualname__", "")
    is_named = isinstance(function, FunctionType) and "<" not in name.rpartition(".")[2]
    return f"{function.__module__}.{name}" if is_named else repr(function)


def notice_line(lease: JSON, now: float) -> str:
    """What the holder of a lease with a notice reads."""
    notice = lease["notice"]
    when = f"{_whose(lease)} will be taken back in {format_duration(notice['ends_at'] - now)}"
    if notice["kind"] == NoticeKind.IDLE.value:
        return f"{when}: nobody uses it. Run a cell, or %gpu extend, to keep it."
    return (
        f"{when}: somebody who goes first needs the room. Save what you need; the kernel keeps running "
        f"{'without it' if _is_cpu(lease) else 'on the CPU'}."
    )


def withdrawn_line(lease: JSON) -> str:
    """What the holder reads when a notice is withdrawn."""
    return f"{_whose(lease)} stays: it is not taken back after all."


def warning_lines(lease: JSON) -> list[str]:
    """What the holder reads when something is wrong with the slice, one line for each
    condition that is more than information.
    """
    return [
        f"{_whose(lease)} is {condition.text}"
        for condition in conditions_from_list(lease["conditions"])
        if condition.severity is not Severity.INFO
    ]


def _whose(lease: JSON) -> str:
    holder = lease["holder"]
    if holder["kind"] in (HolderKind.WORKER.value, HolderKind.RUN.value):
        return f"The slice {lease['spec']} of {holder['kind']} {holder['id']}"
    what = "kernel" if holder["kind"] == HolderKind.KERNEL.value else "process"
    return f"This {what}'s slice {lease['spec']}"


def _is_cpu(lease: JSON) -> bool:
    return all(piece["kind"] == "cpu" for piece in lease["slices"])


class NoticeWatcher:
    """Looks after the leases of this process.

    Args:
        ask: gives the live leases, as on the wire; may raise `AIStackError`. Set when
            the process connects; without it there is nothing to look after.
        say: shows a line.
    """

    def __init__(
        self,
        ask: Callable[[], Iterable[JSON]] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.ask = ask
        self._say = say or _say
        self._told: dict[str, float] = {}
        self._warned: frozenset[tuple[str, str]] = frozenset()
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_wanted = False

    def watch(self) -> None:
        """Look every few seconds from now on, as long as there is something to look
        after.
        """
        with self._lock:
            self._is_wanted = True
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name=THREAD, daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(ASK_SECONDS)
            self._is_wanted = (
                False  # before asking: what comes after the answer must not be missed
            )
            with contextlib.suppress(
                AIStackError
            ):  # a server that is being started again; asked once more later
                if not self.look(self._leases()) and self._has_ended():
                    return

    def _leases(self) -> Iterable[JSON]:
        return () if self.ask is None else self.ask()

    def _has_ended(self) -> bool:
        """Let the thread go, unless there is something new to look after since it
        asked.
        """
        with self._lock:
            if not self._is_wanted:
                self._thread = None
            return not self._is_wanted

    def look(self, leases: Iterable[JSON]) -> bool:
        """Tell what is new about these leases, and call the functions; whether there
        are any leases.
        """
        found = list(leases)
        for lease in self._tell(found):
            self._call_hooks(lease)
        return bool(found)

    def look_in_passing(self, leases: Iterable[JSON]) -> None:
        """The same where nobody may be held up: the functions are called in a
        thread.
        """
        for lease in self._tell(list(leases)):
            threading.Thread(
                target=self._call_hooks, args=(lease,), name=THREAD, daemon=True
            ).start()

    def _tell(self, found: list[JSON]) -> list[JSON]:
        """Say what is new; the leases with a new notice."""
        with self._looking:  # a cell that begins looks too
            new = [lease for lease in found if lease["notice"] and self._is_new(lease)]
            stays = [
                lease
                for lease in found
                if not lease["notice"] and self._told.pop(lease["id"], None) is not None
            ]
            self._told.update({lease["id"]: lease["notice"]["at"] for lease in new})
            warnings = [
                (lease["id"], line) for lease in found for line in warning_lines(lease)
            ]
            news = [each for each in warnings if each not in self._warned]
            self._warned = frozenset(warnings)
        for _, line in news:
            self._say(line)
        for lease in stays:
            self._say(withdrawn_line(lease))
        for lease in new:
            self._say(notice_line(lease, time.time()))
        return new

    def _is_new(self, lease: JSON) -> bool:
        return bool(self._told.get(lease["id"]) != lease["notice"]["at"])

    def _call_hooks(self, lease: JSON) -> None:
        notice = {**lease["notice"], "lease_id": lease["id"], "spec": lease["spec"]}
        for name, hook in list(_hooks.items()):
            try:
                hook({**notice, "seconds": max(0.0, notice["ends_at"] - time.time())})
            except Exception:
                self._say(
                    f"{name}, called because of the notice, failed:\n{traceback.format_exc()}"
                )


def _say(line: str) -> None:
    print(line, flush=True)


watcher = NoticeWatcher()
"""This process's own; the client tells it whom to ask."""
