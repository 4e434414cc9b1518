"""Telling whoever runs a command on a slice that the slice is no longer theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from jupyter_aistack.client.lease_end import ended_reason
from jupyter_aistack.client.wire import is_usable
from jupyter_aistack.exceptions import AIStackError

JSON = dict[str, Any]
ASK_SECONDS = 10.0
"""Between two looks at the lease."""


class LeaseWatch:
    """Says once, inside its ``with`` block, that a lease has ended by itself: it was
    released by somebody else, has expired, or was preempted. The command is left alone.

    Args:
        read: gives the lease as it is now, as on the wire; may raise `AIStackError`.
        say: shows a line.
        seconds: between two looks.
    """

    def __init__(
        self,
        read: Callable[[], JSON],
        say: Callable[[str], None],
        seconds: float = ASK_SECONDS,
    ) -> None:
        self._read = read
        self._say = say
        self._seconds = seconds
        self._is_over = threading.Event()
        # A daemon: a granting side that does not answer keeps nobody from leaving.
        self._thread = threading.Thread(
            target=self._run, name="aistack-lease-watch", daemon=True
        )

    def __enter__(self) -> LeaseWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What ends from now on has been ended here."""
        self._is_over.set()

    def join(self) -> None:
        """Wait until it looks no more."""
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(self._seconds):
            try:
                lease = self._read()
            except AIStackError:
                continue  # a broker that is being started again is asked later
            if is_usable(lease):
                continue
            if not self._is_over.is_set():
                self._say(
                    f"the lease {lease['id']} has ended: {ended_reason(lease)}; the "
                    "command goes on, and its slice may be given to others"
                )
            return
