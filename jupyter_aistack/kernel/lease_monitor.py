"""The thread that watches a running kernel, and keeps or frees its leases."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable

from jupyter_aistack.system.process_exit import ProcessExit

from .kernel_leases import KernelLeases

WAITING_SECONDS = 1.0
ALONE_SECONDS = 5.0


class LeaseMonitor:
    """Keeps a kernel's leases through a crash, and frees them when it is not started
    again.

    The broker gives a dead holder's slices to others at once. A crashed kernel is
    started again within seconds, so the moment its process ends its leases are put in
    this process's name. When it is not back after `grace_seconds` they
    are released: Jupyter does not tell of a kernel it has given up on, and some
        programs never clean up.

    A thread, not a task: synchronous kernel managers run no event loop between two
        calls.

    Its first act is to bind what the kernel holds to its process.

    Args:
        leases: what the kernel holds.
        pid: its process.
        grace_seconds: how long a dead kernel keeps its leases.
        is_alone: no server's broker runs cycles; run them here.
        is_waiting: a request of the kernel waits.
        log: where failures go.
    """

    def __init__(
        self,
        leases: KernelLeases,
        pid: int,
        *,
        grace_seconds: float,
        is_alone: bool = False,
        is_waiting: bool = False,
        log: logging.Logger,
    ) -> None:
        self._leases = leases
        self._pid = pid
        self._log = log
        self._grace_seconds = grace_seconds
        self._is_alone = is_alone
        self._is_waiting = is_waiting
        self._bell, self._ear = socket.socketpair()
        self._is_stopped = False
        self._is_bound = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="aistack-lease-monitor", daemon=True
        )

    def start(self) -> LeaseMonitor:
        self._thread.start()
        return self

    def wait_until_bound(self) -> None:
        """Wait until the leases are bound to the process, or that has failed and been
        logged.
        """
        self._is_bound.wait()

    def stop(self) -> None:
        """Stop watching; changes nothing. Stopping twice is allowed."""
        self._is_stopped = True
        with contextlib.suppress(OSError):  # it has ended by itself
            self._bell.send(b".")

    def _run(self) -> None:
        try:
            with self._bell, self._ear:
                self._watch()
        except Exception:
            self._log.warning(
                "leases of a kernel are no longer watched; they end with its process",
                exc_info=True,
            )

    def _watch(self) -> None:
        self._quietly(lambda: self._leases.bind(self._pid))
        self._is_bound.set()
        with ProcessExit(self._pid) as ended:
            while not ended.wait(self._pause(), unless=self._ear):
                if self._is_stopped:
                    return
                self._quietly(self._refresh)
        if self._is_stopped:
            return
        # At once: a cycle of the broker would give a dead holder's slices to others.
        self._quietly(lambda: self._leases.hold_for_restart(self._pid))
        self._ear.settimeout(self._grace_seconds)
        with contextlib.suppress(TimeoutError):
            self._ear.recv(1)
        if not self._is_stopped:
            self._quietly(lambda: self._leases.release(self._pid))

    def _pause(self) -> float | None:
        if self._is_waiting:
            return WAITING_SECONDS
        return ALONE_SECONDS if self._is_alone else None

    def _refresh(self) -> None:
        self._is_waiting = self._leases.refresh(is_alone=self._is_alone)

    def _quietly(self, step: Callable[[], None]) -> None:
        """One step; what fails is tried again at the next, and the ledger's own
        deadlines bound what is lost.
        """
        try:
            step()
        except Exception as error:
            self._log.warning("leases of a kernel could not be looked after: %s", error)
