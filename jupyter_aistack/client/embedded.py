"""The way to the granting side in this process: a broker of our own on the ledger.

The client's only module that imports the granting side. It does so when a transport is
made: a process that speaks to a Jupyter server never loads it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any

from jupyter_aistack.exceptions import AIStackError

from .transports import JSON, Transport

USAGE_SECONDS = 2.0
"""Between two samples of what this process's leases use, as in a Jupyter server."""
STOP_SECONDS = 60.0
"""How long `close` waits for the thread that renews."""
GRANTING_VERBS = frozenset({"request", "wait_for"})
"""Verbs after which there may be use to be sampled."""


class EmbeddedTransport(Transport):
    """A broker of our own, in this process, on the ledger all of the user's processes
    share.

    A thread renews what this process holds; a process that dies stops renewing and
    loses it. A process that is forked from this one gets a broker of its own with its
    first call.
    """

    kind = "embedded"

    def __init__(self) -> None:
        self._opening = threading.Lock()
        self._of_parents: list[object] = []
        self._open()
        _transports.add(self)

    def renew_lock(self) -> None:
        """In a process that was just forked: a thread that held the lock is not in
        it.
        """
        self._opening = threading.Lock()

    def _open(self) -> None:
        from jupyter_aistack.broker.api.caller import Caller
        from jupyter_aistack.config import load_settings
        from jupyter_aistack.system.kernel_processes import is_launched_kernel
        from jupyter_aistack.system.users import current_user, is_root

        settings = load_settings()
        self._broker = settings.build_broker()
        self._service = settings.build_service(self._broker)
        kernel_id = os.environ.get("AISTACK_KERNEL", "")
        is_kernel = is_launched_kernel(os.getpid(), kernel_id)
        self._caller = Caller(
            user=current_user(),
            uid=os.getuid(),
            pid=os.getpid(),
            kernel_id=kernel_id if is_kernel else "",
            parent="" if is_kernel else kernel_id,
            is_admin=is_root(),
        )
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._renewer = threading.Thread(
            target=self._run, name="aistack-renewer", daemon=True
        )
        self._renewer.start()
        self._pid = os.getpid()

    def _run(self) -> None:
        renew_at = self._next_renewal()
        ticked_at = float("-inf")
        while True:
            self._wake.wait(self._pause(renew_at))
            # Leases may be shorter than what a tick costs: however many begin, there is
            # one tick in two seconds, and what they used is read from the ledger.
            too_soon = max(0.0, ticked_at + USAGE_SECONDS - time.monotonic())
            if self._stop.wait(too_soon):
                return
            self._wake.clear()

            ticked_at = time.monotonic()
            is_due = time.monotonic() >= renew_at
            # A ledger that does not answer now is asked again in the next round.
            with contextlib.suppress(AIStackError):
                self._tick(is_due=is_due)
            # Counted from after the tick: a tick that is slower than the interval must
            # not be followed by the next at once.
            if time.monotonic() >= renew_at:
                renew_at = self._next_renewal()

    def _next_renewal(self) -> float:
        return time.monotonic() + self._broker.ttl_seconds / 6

    def _pause(self, renew_at: float) -> float:
        """How long to sleep; shorter while there is use to be sampled."""
        until_renewal = max(0.0, renew_at - time.monotonic())
        if self._broker.usage_meter.is_open:
            return min(until_renewal, USAGE_SECONDS)
        return until_renewal

    def _tick(self, *, is_due: bool) -> None:
        if is_due:
            self._broker.maintain()
        else:
            self._broker.record_usage()

    def _reopen(self) -> None:
        """Leave what was inherited alone, unclosed: it is the parent's."""
        with self._opening:
            if self._pid != os.getpid():
                self._of_parents.append((self._broker, self._service))
                self._open()

    def call(self, verb: str, payload: Mapping[str, Any]) -> JSON:
        if self._pid != os.getpid():
            self._reopen()
        try:
            return self._service.call(verb, payload, self._caller)
        finally:
            # A first lease begins: what the device drew before is not its own. Later
            # leases are seen in the ticks.
            if verb in GRANTING_VERBS and not self._broker.usage_meter.is_open:
                self._wake.set()

    def close(self) -> None:
        if self._pid != os.getpid():
            return
        self._stop.set()
        self._wake.set()
        self._renewer.join(timeout=STOP_SECONDS)
        self._broker.close()


def configured_broker() -> str:
    """The socket of the host's broker, as the settings say; empty for none.

    Raises:
        AIStackError: a setting makes no sense, or another user may have put it there.
    """
    from jupyter_aistack.config import load_settings
    from jupyter_aistack.system.broker_path import broker_path

    return broker_path(load_settings().broker_socket)


_transports: weakref.WeakSet[EmbeddedTransport] = weakref.WeakSet()


def _renew_locks() -> None:
    for transport in list(_transports):
        transport.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
