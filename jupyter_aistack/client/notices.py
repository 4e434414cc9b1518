"""Notices that a slice will be reclaimed or preempted: shown in the notebook in time,
and given to functions that save what must be saved.

What is wrong with a slice (not enforced, over its memory, on a GPU that failed) is
shown there too.

A thread asks every few seconds while this process holds something. It never raises, and
changes nothing.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, TypeVar

from jupyter_aistack.core.model.condition import Severity
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.core.model.units import format_duration
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.standard_streams import write_line

from .text import condition_text

JSON = Mapping[str, Any]
Hook = Callable[[dict[str, Any]], object]
H = TypeVar("H", bound=Hook)

ASK_SECONDS = 10.0
"""Between two polls; a notice comes a minute before the end, or five."""

THREAD = "aistack-notices"

_hooks: dict[str, Hook] = {}


def on_notice(function: H) -> H:
    """Have `function` called when a slice of this process is about to be reclaimed or
    preempted, to save what must be saved.

    Also a decorator. It is called once per notice, in a thread of its own beside the
    running cell, with a dict: ``kind`` (``"preempt"`` or ``"idle"``), ``at`` and
    ``ends_at`` (seconds since the epoch), ``seconds`` left, ``lease_id`` and ``spec``.
    What it raises is shown and changes nothing. Giving a function of the same name
    again replaces the first, as when a cell is run twice.
    """
    _hooks[_name(function)] = function
    return function


def forget_notice(function: Hook) -> None:
    """Undo `on_notice`; a function that it was never given is no error."""
    names = [name for name, hook in _hooks.items() if hook == function]
    for name in names:
        del _hooks[name]


def _name(function: Hook) -> str:
    """What tells a function from others; a function that was written with ``def`` is
    the same again when its cell is run again.
    """
    name = getattr(function, "__qualname__", "")
    is_named = isinstance(function, FunctionType) and "<" not in name.rpartition(".")[2]
    return f"{function.__module__}.{name}" if is_named else repr(function)


def notice_line(lease: JSON, now: float) -> str:
    """What the holder of a lease with a notice reads."""
    from jupyter_aistack.core.model.lease import NoticeKind

    notice = lease["notice"]
    left = format_duration(notice["ends_at"] - now)
    if notice["kind"] == NoticeKind.IDLE.value:
        return f"{_whose(lease)} will be reclaimed in {left}: it is idle. Run a cell, or %gpu extend, to keep it."
    rest = "without it" if _is_cpu(lease) else "on the CPU"
    return (
        f"{_whose(lease)} will be preempted in {left}: a higher-priority request needs the capacity. "
        f"Save what you need; the kernel keeps running {rest}."
    )


def withdrawn_line(lease: JSON) -> str:
    """What the holder reads when a notice is withdrawn."""
    return f"{_whose(lease)} stays: the notice is withdrawn."


def warning_lines(lease: JSON) -> list[str]:
    """What the holder reads when something is wrong with the slice, one line for each
    condition that is more than information.
    """
    return [
        f"{_whose(lease)} is {condition_text(condition)}"
        for condition in lease["conditions"]
        if condition["severity"] != Severity.INFO.value
    ]


def _whose(lease: JSON) -> str:
    from jupyter_aistack.core.model.request import HolderKind

    holder = lease["holder"]
    if holder["kind"] in (HolderKind.WORKER.value, HolderKind.RUN.value):
        return f"The slice {lease['spec']} of {holder['kind']} {holder['id']}"
    what = "kernel" if holder["kind"] == HolderKind.KERNEL.value else "process"
    return f"This {what}'s slice {lease['spec']}"


def _is_cpu(lease: JSON) -> bool:
    return all(slice_["kind"] == "cpu" for slice_ in lease["slices"])


class NoticeWatcher:
    """Shows what is new about the leases of this process, and calls the functions of
    `on_notice`.

    Args:
        ask: gives the live leases, as on the wire; may raise `AIStackError`. Set when
            the process connects; without it there is nothing to watch.
        say: shows a line.
    """

    def __init__(
        self,
        ask: Callable[[], Iterable[JSON]] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.ask = ask
        self._say = say or _say
        self._notice_times: dict[str, float] = {}
        self._warnings: frozenset[tuple[str, str]] = frozenset()
        self._thread_lock = threading.Lock()
        self._update_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_wanted = False

    def watch(self) -> None:
        """Poll from now on, as long as there is something to watch."""
        with self._thread_lock:
            self._is_wanted = True
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name=THREAD, daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(ASK_SECONDS)
            # Before asking: what comes after the answer must not be missed.
            self._is_wanted = False
            # A server that is being started again is asked once more later.
            with contextlib.suppress(AIStackError):
                if not self.update(self._leases()) and self._has_ended():
                    return

    def _leases(self) -> Iterable[JSON]:
        return () if self.ask is None else self.ask()

    def _has_ended(self) -> bool:
        """Let the thread go, unless there is something new to watch since it asked."""
        with self._thread_lock:
            if not self._is_wanted:
                self._thread = None
            return not self._is_wanted

    def update(self, leases: Iterable[JSON]) -> bool:
        """Show what is new about these leases, and call the functions; whether there
        are any leases.
        """
        present = list(leases)
        for lease in self._show(present):
            self._call_hooks(lease)
        return bool(present)

    def update_in_background(self, leases: Iterable[JSON]) -> None:
        """The same where the caller may not be held up: the functions are called in a
        thread.
        """
        for lease in self._show(list(leases)):
            threading.Thread(
                target=self._call_hooks, args=(lease,), name=THREAD, daemon=True
            ).start()

    def _show(self, leases: list[JSON]) -> list[JSON]:
        """Show what is new; the leases with a new notice."""
        with self._update_lock:  # a cell that begins updates too
            warnings = self._new_warnings(leases)
            withdrawn = self._withdrawn(leases)
            noticed = self._noticed(leases)
        for line in warnings:
            self._say(line)
        for lease in withdrawn:
            self._say(withdrawn_line(lease))
        for lease in noticed:
            self._say(notice_line(lease, time.time()))
        return noticed

    def _new_warnings(self, leases: list[JSON]) -> list[str]:
        """Warnings that were not there the last time."""
        before = self._warnings
        now = [(lease["id"], line) for lease in leases for line in warning_lines(lease)]
        self._warnings = frozenset(now)
        return [warning[1] for warning in now if warning not in before]

    def _withdrawn(self, leases: list[JSON]) -> list[JSON]:
        """The leases whose notice has gone."""
        withdrawn = []
        for lease in leases:
            had_notice = lease["id"] in self._notice_times
            if had_notice and not lease["notice"]:
                del self._notice_times[lease["id"]]
                withdrawn.append(lease)
        return withdrawn

    def _noticed(self, leases: list[JSON]) -> list[JSON]:
        """The leases with a new notice."""
        noticed = []
        for lease in leases:
            notice = lease["notice"]
            if notice and self._notice_times.get(lease["id"]) != notice["at"]:
                self._notice_times[lease["id"]] = notice["at"]
                noticed.append(lease)
        return noticed

    def _call_hooks(self, lease: JSON) -> None:
        notice = {**lease["notice"], "lease_id": lease["id"], "spec": lease["spec"]}
        for name, hook in list(_hooks.items()):
            seconds = max(0.0, notice["ends_at"] - time.time())
            try:
                hook({**notice, "seconds": seconds})
            except Exception:
                self._say(
                    f"{name}, called because of the notice, failed:\n{traceback.format_exc()}"
                )


def _say(line: str) -> None:
    write_line(sys.stdout, "\n".join(map(printable, line.splitlines())))


watcher = NoticeWatcher()
"""This process's own; the client tells it whom to ask."""
