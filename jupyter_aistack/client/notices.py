"""Notices that a slice will end: shown in the notebook in time, and passed to functions
that save what must be saved.

What is wrong with a slice (not enforced, over its memory, on a GPU that failed) is shown
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
from jupyter_aistack.core.model.device import SliceKind
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
    """Have `function` called when a slice of this process is about to end, to
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
    """Call a function no longer that was given to `on_notice`; any other is ignored."""
    for name in [name for name, known in _hooks.items() if known == function]:
        del _hooks[name]


def _name(function: Hook) -> str:
    """What tells a function from others; a function that was written with ``def`` has
    the same name again when its cell is run again.
    """
    name = getattr(function, "__qualname__", "")
    is_named = isinstance(function, FunctionType) and "<" not in name.rpartition(".")[2]
    return f"{function.__module__}.{name}" if is_named else repr(function)


def notice_line(lease: JSON, now: float) -> str:
    """What the holder of a lease with a notice reads."""
    notice = lease["notice"]
    left = format_duration(notice["ends_at"] - now)
    if notice["kind"] == NoticeKind.IDLE.value:
        return (
            f"{_whose(lease)} will be reclaimed in {left}: it is idle. "
            "Run a cell, or %gpu extend, to keep it."
        )
    rest = "without it" if _is_cpu(lease) else "on the CPU"
    return (
        f"{_whose(lease)} will be preempted in {left}: a request of higher priority "
        f"needs the capacity. Save what you need; the kernel keeps running {rest}."
    )


def withdrawn_line(lease: JSON) -> str:
    """What the holder reads when a notice is withdrawn."""
    return f"{_whose(lease)} stays: the notice is withdrawn."


def warning_lines(lease: JSON) -> list[str]:
    """What the holder reads when something is wrong with the slice: a line for each
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
    return all(slice_["kind"] == SliceKind.CPU.value for slice_ in lease["slices"])


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
            # Cleared before asking: a lease that comes after the answer sets it again,
            # and would otherwise be missed.
            self._is_wanted = False
            # A server that is being restarted is asked again later.
            with contextlib.suppress(AIStackError):
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
        """Show what is new about these leases, and call the functions; whether there
        are any leases.
        """
        current = list(leases)
        for lease in self._show_news(current):
            self._call_hooks(lease)
        return bool(current)

    def look_in_passing(self, leases: Iterable[JSON]) -> None:
        """The same before a cell, which must not wait: the functions are called in a
        thread.
        """
        for lease in self._show_news(list(leases)):
            hooks = threading.Thread(
                target=self._call_hooks, args=(lease,), name=THREAD, daemon=True
            )
            hooks.start()

    def _show_news(self, leases: list[JSON]) -> list[JSON]:
        """Show what is new; the leases with a new notice."""
        # A cell that begins looks too: each notice must be shown once.
        with self._looking:
            warnings = self._new_warnings(leases)
            kept = [lease for lease in leases if self._is_kept_again(lease)]
            noticed = [lease for lease in leases if self._has_new_notice(lease)]
            self._told.update({lease["id"]: lease["notice"]["at"] for lease in noticed})

        for line in warnings:
            self._say(line)
        for lease in kept:
            self._say(withdrawn_line(lease))
        for lease in noticed:
            self._say(notice_line(lease, time.time()))
        return noticed

    def _new_warnings(self, leases: list[JSON]) -> list[str]:
        warnings = [
            (lease["id"], line) for lease in leases for line in warning_lines(lease)
        ]
        news = [line for key, line in warnings if (key, line) not in self._warned]
        self._warned = frozenset(warnings)
        return news

    def _is_kept_again(self, lease: JSON) -> bool:
        """Whether its notice was withdrawn; forgets that there was one."""
        if lease["notice"]:
            return False
        return self._told.pop(lease["id"], None) is not None

    def _has_new_notice(self, lease: JSON) -> bool:
        notice = lease["notice"]
        return bool(notice) and self._told.get(lease["id"]) != notice["at"]

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
