"""Leases that come and go between two cells: attached right before the next one, or let
go of.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jupyter_aistack.client import notices
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.notebook.panels.views import arrived_line, waiting_line

from .launch_lease import LaunchLease

if TYPE_CHECKING:
    from jupyter_aistack.client.client import LeaseHandle

PATIENCE_SECONDS = 0.5
"""What a cell may be held up when the answer is slow; it takes milliseconds. A lease
that has come must be attached before the cell and not after it, for that cell may start
CUDA and fix the devices for good."""


class LeaseSync:
    """Asks before each cell whether a lease has come or has ended, as long as either
    may be.

    One may come when a request of this kernel waits, or when a Jupyter server runs it,
    whose pages can ask for it. One may end when one is attached.

    Args:
        say: shows a line.
        told: is given each answer, that of the ``mine`` verb.
    """

    def __init__(
        self,
        say: Callable[[str], None] = print,
        told: Callable[[Mapping[str, Any]], None] = lambda mine: None,
    ) -> None:
        self.pending: LeaseHandle | None = None
        self._say = say
        self._told = told
        self._started_with = os.environ.get("AISTACK_REQUEST", "")
        self._is_told = not self._started_with
        self._thread: threading.Thread | None = None
        self._found: Mapping[str, Any] | None = None
        self._born = LaunchLease()

    def before_cell(self, *_: Any) -> None:
        """IPython's ``pre_run_cell``; never raises."""
        if not self._may_change():
            return
        self._look()
        found = self._found
        self._found = None
        if found is None:
            return
        try:
            self._told(found)
            self._take(found)
        except AIStackError as error:
            self._say(error.message)

    def _may_change(self) -> bool:
        """Also whether one may go; a client that nobody has opened yet has attached
        nothing.
        """
        clients = sys.modules.get("jupyter_aistack.client.client")
        is_attached = clients is not None and clients.attached() is not None
        is_asked_for = self.pending is not None or bool(
            os.environ.get("AISTACK_SOCKET") or self._started_with
        )
        return is_attached or is_asked_for

    def _look(self) -> None:
        """Ask in a thread, and wait for it a moment; an answer that comes later is used
        before the next cell.
        """
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._ask, name="aistack-arrivals", daemon=True
            )
            self._thread.start()
        self._thread.join(PATIENCE_SECONDS)

    def _ask(self) -> None:
        from jupyter_aistack.client import client as clients

        with contextlib.suppress(
            AIStackError
        ):  # the user hears of it on the next %gpu, not in a cell of their own
            if self.pending is not None and self.pending.refresh().state not in (
                "queued",
                "granted",
            ):
                self.pending = None  # it was taken back elsewhere
            self._found = clients.connect().mine()

    def _take(self, mine: Mapping[str, Any]) -> None:
        from jupyter_aistack.client import client as clients

        for line in [
            *clients.drop_ended({lease["id"] for lease in mine["leases"]}),
            *self._born.drop_ended(mine),
        ]:
            self._say(line)
        notices.watcher.look_in_passing(mine["leases"])
        if clients.attached() is not None:
            return
        for lease in mine["leases"]:
            if (
                lease["id"] in mine["prepared"]
                and clients.is_new(lease)
                and self._adopt(lease["request_id"])
            ):
                return
        if not self._is_told and mine["requests"]:
            self._is_told = True
            self._say(waiting_line(mine["requests"][0]))

    def _adopt(self, request_id: str) -> bool:
        """Attach what a request has become, unless that has changed since it was looked
        at.
        """
        from jupyter_aistack.client import client as clients

        client = clients.connect()
        held = clients.LeaseHandle(
            client, client.call("wait_for", request_id=request_id)
        )
        if held.lease is None or not clients.is_new(held.lease):
            return False
        self.pending = None
        self._is_told = True
        try:
            self._say(arrived_line(held.attach().lease or {}))
        except AIStackError as error:
            self._say(
                f"{held.spec} ({held.id}) came and was given back: {error.message}"
            )
        return True
