"""Leases that come and go between two cells: attached right before the next cell, or
detached.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jupyter_aistack.client import notices
from jupyter_aistack.exceptions import AIStackError, LeaseLost
from jupyter_aistack.notebook.module_names import PROCESS_LEASES
from jupyter_aistack.notebook.panels.views import arrived_line, waiting_line

from .launch_lease import LaunchLease
from .limit_follower import LimitFollower

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client, LeaseHandle

PATIENCE_SECONDS = 0.5
"""How long a cell is held up when the answer is slow; it takes milliseconds. A lease
that has come must be attached before the cell and not after it, for that cell may start
CUDA and fix the devices for good."""

STILL_WANTED = ("queued", "granted")
"""States of a request that may yet become this kernel's lease."""

Mine = Mapping[str, Any]
"""The answer of the ``mine`` verb."""


class LeaseSync:
    """Asks before each cell whether a lease has come or has ended, as long as either
    may be.

    A lease may come when a request of this kernel waits, or when a Jupyter server runs
    it, whose pages can ask for a lease. A lease may end when a lease is attached.

    Args:
        connect: gives the client.
        say: shows a line.
        on_mine: is given each answer, that of the ``mine`` verb.
        patience_seconds: how long a cell waits for the answer at most.

    Attributes:
        pending: a request of this kernel that still waits.
        patience_seconds: as given.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        say: Callable[[str], None] = print,
        on_mine: Callable[[Mine], None] = lambda mine: None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.pending: LeaseHandle | None = None
        self._connect = connect
        self._say = say
        self._on_mine = on_mine
        self.patience_seconds = patience_seconds
        self._launch_request = os.environ.get("AISTACK_REQUEST", "")
        self._is_waiting_told = not self._launch_request
        self._is_slowness_told = False
        self._thread: threading.Thread | None = None
        self._answer: Mine | None = None
        self._launch_lease = LaunchLease(connect)
        self._limits = LimitFollower()

    def before_cell(self, *_: Any) -> None:
        """IPython's ``pre_run_cell``; never raises."""
        if not self._may_change():
            return
        self._poll()
        mine = self._answer
        self._answer = None
        if mine is None:
            return
        try:
            self._on_mine(mine)
            self.update(mine)
        except AIStackError as error:
            self._say(error.message)

    def _may_change(self) -> bool:
        """Whether a lease may have come or gone; makes no call and imports nothing."""
        if self.pending is not None or self._launch_request:
            return True
        if os.environ.get("AISTACK_SOCKET"):
            return True
        # A client that is not imported yet has attached nothing.
        handles = sys.modules.get(PROCESS_LEASES)
        return handles is not None and handles.attached() is not None

    def _poll(self) -> None:
        """Ask in a thread and wait for it a moment; an answer that comes later is used
        before the next cell.
        """
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._ask, name="aistack-lease-sync", daemon=True
            )
            self._thread.start()
        self._thread.join(self.patience_seconds)

    def _ask(self) -> None:
        # The user reads of an error on the next %gpu, not in a cell of their own.
        with contextlib.suppress(AIStackError):
            if self.pending is not None and not _is_wanted(self.pending):
                self.pending = None
            self._answer = self._connect().mine()

    def update(self, mine: Mine) -> None:
        """Detach what has ended, attach what has come, and say so.

        Raises:
            AIStackError: the granting side does not answer.
        """
        from jupyter_aistack.client.lease_guard import watched_leases
        from jupyter_aistack.client.process_leases import attached, drop_ended

        live = {lease["id"] for lease in mine["leases"]}
        for line in drop_ended(live):
            self._say(line)
        for line in self._launch_lease.drop_ended(mine):
            self._say(line)
        notices.watcher.update_in_background(watched_leases(mine))
        if attached() is None:
            self._attach_new(mine)
        self._limits.follow(mine)

    def _attach_new(self, mine: Mine) -> None:
        """Attach the first lease that came from elsewhere, or say what is waited
        for.
        """
        from jupyter_aistack.client.process_leases import is_new

        for lease in mine["leases"]:
            is_own = lease["id"] in mine["prepared"]
            is_own_new = is_own and is_new(lease)
            if is_own_new and self._adopt(lease["request_id"]):
                return
        if not self._is_waiting_told and mine["requests"]:
            self._is_waiting_told = True
            self._say(waiting_line(mine["requests"][0]))

    def _adopt(self, request_id: str) -> bool:
        """Attach what a request has become, unless that has changed since the answer
        was made.
        """
        from jupyter_aistack.client.lease_handle import LeaseHandle
        from jupyter_aistack.client.process_leases import is_new

        client = self._connect()
        handle = LeaseHandle(client, client.call("wait_for", request_id=request_id))
        if handle.lease is None or not is_new(handle.lease):
            return False
        self.pending = None
        self._is_waiting_told = True
        self._is_slowness_told = False
        try:
            lease = handle.attach(on_check=self._say_slow).lease or {}
        except AIStackError as error:
            self._say(
                f"{handle.spec} ({handle.id}) came and was given back: {error.message}"
            )
        else:
            self._say(arrived_line(lease))
        return True

    def _say_slow(self, seconds: float) -> None:
        """Say once that a check takes long."""
        if not self._is_slowness_told:
            self._is_slowness_told = True
            self._say("a lease came, and is being checked: its driver starts slowly")


def _is_wanted(pending: LeaseHandle) -> bool:
    """Whether a request may yet become a lease to be attached; not one that was
    withdrawn elsewhere, or whose lease has failed before it came.
    """
    try:
        return pending.refresh().state in STILL_WANTED
    except LeaseLost:
        return False
