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
"""How long an order waits for the end of a cell: the one with ``%gpu suspend`` in it,
say.
"""
RETRY_SECONDS = 5.0
"""After a question that nobody answered: the server is being started again."""


class SuspendAgent:
    """Asks the server for orders, which holds the answer back until there are some, and
    carries them out.

    It asks only while this kernel's lease has a residence, and never moves anything
    beside a running cell.

    Args:
        presence: whether a cell runs.
        call: carries a verb to the server; raises `AIStackError`.

    Attributes:
        lease_id: the kernel's lease that may be parked; empty for none.
        residence: where its device state was when the server last said so, as on the
            wire.
        has_been_parked: it has been so since this kernel started.
    """

    def __init__(self, presence: ExecutionLock, call: Callable[..., JSON]) -> None:
        self._presence = presence
        self._call = call
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.lease_id = ""
        self.residence: Mapping[str, Any] | None = None
        self.has_been_parked = False

    def see(self, lease: Mapping[str, Any] | None) -> None:
        """The kernel's own lease as it stands now; starts to ask when it may be
        parked.
        """
        residence = None if lease is None else lease.get("residence")
        if residence is None or lease is None:
            self.lease_id = ""
            self.residence = None
            return
        self.lease_id = str(lease["id"])
        self._note(residence)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name=THREAD, daemon=True
                )
                self._thread.start()

    def _note(self, residence: Mapping[str, Any]) -> None:
        self.residence = residence
        self.has_been_parked = self.has_been_parked or residence["phase"] == "parked"

    def _run(self) -> None:
        while self.lease_id:
            try:
                self.obey(self._call("orders", lease_id=self.lease_id))
            except InvalidRequest:  # the other side knows of no orders
                return
            except AIStackError:
                time.sleep(RETRY_SECONDS)

    def obey(self, said: Mapping[str, Any]) -> None:
        """Carry out what an answer orders, and say how it went."""
        if said["residence"] is None:
            self.lease_id = ""
            self.residence = None
            return
        self._note(said["residence"])
        for order in said["orders"]:
            answer = self._carry_out(order)
            with contextlib.suppress(
                AIStackError
            ):  # whoever asked is gone, and will ask again
                self._call("done", order_id=order["id"], answer=answer)

    def _carry_out(self, order: Mapping[str, Any]) -> JSON:
        kinds = frozenset(order.get("kinds") or ())
        with self._presence.quiet(PATIENCE_SECONDS) as is_quiet:
            if not is_quiet:
                return {"error": "a cell runs", "is_busy": True}
            try:
                return _ACTS[order["act"]](kinds)
            except AIStackError as error:
                return {"error": error.message}
            except (
                Exception
            ) as error:  # whatever a library says, the next order must find us here
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


_ACTS: Mapping[str, Callable[[Collection[str]], JSON]] = {
    "report": _report,
    "trim": _trim,
    "out": _move_out,
    "in": _move_in,
}
