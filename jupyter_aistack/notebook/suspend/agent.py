"""The thread that does in this kernel what its server asks for: trim, report, move
registered objects out and in.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jupyter_aistack.exceptions import AIStackError, InvalidRequest

from .execution_lock import ExecutionLock

JSON = dict[str, Any]
THREAD = "aistack-agent"
PATIENCE_SECONDS = 2.0
"""How long a command waits for the end of a cell, such as the cell that contains
``%gpu suspend``.
"""
RETRY_SECONDS = 5.0
"""After a call that was not answered: the server is being started again."""


class SuspendAgent:
    """Asks the server for commands, which holds the answer back until there are some,
    and executes them.

    It asks only while this kernel's lease can be suspended, and never moves anything
    beside a running cell.

    Args:
        lock: whether a cell runs.
        call: carries a verb to the server; raises `AIStackError`.

    Attributes:
        lease_id: the kernel's lease that may be suspended; empty for none.
        device_state: where its device state was by the last answer of the server, as
            on the wire.
        was_suspended: it has been suspended since this kernel started.
    """

    def __init__(self, lock: ExecutionLock, call: Callable[..., JSON]) -> None:
        self._execution_lock = lock
        self._call = call
        self._thread_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.lease_id = ""
        self.device_state: Mapping[str, Any] | None = None
        self.was_suspended = False

    def observe(self, lease: Mapping[str, Any] | None) -> None:
        """Take note of the kernel's own lease as it is now; starts to ask when it may
        be suspended.
        """
        device_state = None if lease is None else lease.get("residence")
        if lease is None or device_state is None:
            self._forget()
            return
        self.lease_id = str(lease["id"])
        self._update(device_state)
        with self._thread_lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name=THREAD, daemon=True
                )
                self._thread.start()

    def _forget(self) -> None:
        self.lease_id = ""
        self.device_state = None

    def _update(self, device_state: Mapping[str, Any]) -> None:
        self.device_state = device_state
        if device_state["phase"] == "parked":
            self.was_suspended = True

    def _run(self) -> None:
        while self.lease_id:
            try:
                self.execute(self._call("orders", lease_id=self.lease_id))
            except InvalidRequest:  # the other side has no such verb
                return
            except AIStackError:
                time.sleep(RETRY_SECONDS)

    def execute(self, answer: Mapping[str, Any]) -> None:
        """Execute the commands of an answer to ``orders``, and send what each came
        to.
        """
        if answer["residence"] is None:
            self._forget()
            return
        self._update(answer["residence"])
        for command in answer["orders"]:
            result = self._result_of(command)
            # A caller that is gone meanwhile will ask again.
            with contextlib.suppress(AIStackError):
                self._call("done", order_id=command["id"], answer=result)

    def _result_of(self, command: Mapping[str, Any]) -> JSON:
        kinds = frozenset(command.get("kinds") or ())
        with self._execution_lock.block(PATIENCE_SECONDS) as is_blocked:
            if not is_blocked:
                return {"error": "a cell runs", "is_busy": True}
            try:
                return _ACTIONS[command["act"]](kinds)
            except AIStackError as error:
                return {"error": error.message}
            except Exception as error:
                # Whatever a library raises, the thread must live for the next command.
                return {"error": f"{type(error).__name__}: {error}"}


def _report(kinds: Collection[str]) -> JSON:
    from .report import report

    return report(kinds)


def _trim(kinds: Collection[str]) -> JSON:
    from .report import trim

    trim()
    return _report(kinds)


def _move_out(kinds: Collection[str]) -> JSON:
    from jupyter_aistack.client.offload import registry

    return vars(registry.move_out(kinds))


def _move_in(kinds: Collection[str]) -> JSON:
    from jupyter_aistack.client.offload import registry

    return vars(registry.move_in())


_ACTIONS: Mapping[str, Callable[[Collection[str]], JSON]] = {
    "report": _report,
    "trim": _trim,
    "out": _move_out,
    "in": _move_in,
}
"""By the word on the wire."""
