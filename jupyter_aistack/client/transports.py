"""Two ways to the granting side: over the socket of the Jupyter server that runs this
kernel, or in this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from jupyter_aistack.exceptions import AIStackError, LedgerUnavailable, error_from_dict

JSON = dict[str, Any]
CALL_SECONDS = 60.0
MAX_LINE = 64 << 20
LOOK_SECONDS = 2.0
"""Between two looks at what this process's leases use, as in a Jupyter server."""
MOVING_VERBS = frozenset({"request", "wait_for", "release"})


class Transport(ABC):
    """Carries one call to the granting side and its answer back."""

    kind: str

    @abstractmethod
    def call(self, verb: str, payload: Mapping[str, Any]) -> JSON:
        """The answer. Raises `AIStackError` as the other side did."""

    def close(self) -> None:  # noqa: B027 - a socket per call leaves nothing to close
        """Let go of what the transport holds."""


class SocketTransport(Transport):
    """To the Jupyter server that launched this kernel. Who we are is read off the
    socket by the other end.
    """

    kind = "socket"

    def __init__(self, path: str) -> None:
        self.path = path

    def call(self, verb: str, payload: Mapping[str, Any]) -> JSON:
        line = json.dumps({"verb": verb, "payload": dict(payload)}).encode() + b"\n"
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(CALL_SECONDS)
                connection.connect(self.path)
                connection.sendall(line)
                with connection.makefile("rb") as answers:
                    answer = json.loads(answers.readline(MAX_LINE) or b"{}")
        except (OSError, ValueError) as error:
            raise LedgerUnavailable(
                f"AISTACK_SOCKET: no Jupyter server answers at {self.path}; start it again, "
                "or unset AISTACK_SOCKET to use the ledger directly",
                field="AISTACK_SOCKET",
            ) from error
        if "result" not in answer:
            raise error_from_dict(
                answer.get("error")
                or {"message": "the Jupyter server closed the connection"}
            )
        result: JSON = answer["result"]
        return result


class EmbeddedTransport(Transport):
    """A broker of our own, in this process, on the ledger all of the user's processes
    share.

    A thread renews what this process holds; a process that dies stops renewing and
    loses it.
    """

    kind = "embedded"

    def __init__(self) -> None:
        from jupyter_aistack.broker.api.service import Caller
        from jupyter_aistack.config import load_settings
        from jupyter_aistack.system.processes import current_user

        settings = load_settings()
        self._broker = settings.build_broker()
        self._service = settings.build_service(self._broker)
        self._caller = Caller(
            user=current_user(),
            uid=os.getuid(),
            pid=os.getpid(),
            kernel_id=os.environ.get("AISTACK_KERNEL", ""),
            is_admin=os.getuid() == 0,
        )
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._keeper = threading.Thread(
            target=self._keep, name="aistack-keeper", daemon=True
        )
        self._keeper.start()

    def _keep(self) -> None:
        due = time.monotonic() + self._broker.ttl_seconds / 6
        while not self._stop.is_set():
            wait = max(0.0, due - time.monotonic())
            self._woken.wait(
                min(wait, LOOK_SECONDS) if self._broker.usage_meter.is_open else wait
            )
            self._woken.clear()
            with contextlib.suppress(AIStackError):  # tried again in the next round
                self._look(is_due=time.monotonic() >= due)
            if time.monotonic() >= due:
                due = time.monotonic() + self._broker.ttl_seconds / 6

    def _look(self, *, is_due: bool) -> None:
        if self._stop.is_set():
            return
        if is_due:
            self._broker.maintain()
        else:
            self._broker.record_usage()

    def call(self, verb: str, payload: Mapping[str, Any]) -> JSON:
        try:
            return self._service.call(verb, payload, self._caller)
        finally:
            if (
                verb in MOVING_VERBS
            ):  # who holds what may have changed: what was used is told apart there
                self._woken.set()

    def close(self) -> None:
        self._stop.set()
        self._woken.set()
        self._keeper.join(timeout=CALL_SECONDS)
        self._broker.close()
