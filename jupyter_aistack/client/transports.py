"""The port to the granting side, and the ways over sockets: of the Jupyter server that
runs this kernel, and of the host's broker.

The third way, in this process, is :mod:`.embedded`.
"""

from __future__ import annotations

import json
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jupyter_aistack.exceptions import LedgerUnavailable, error_from_dict

if TYPE_CHECKING:
    from jupyter_aistack.core.wire.protocol import SpokenFor

JSON = dict[str, Any]
CALL_SECONDS = 60.0
MAX_LINE = 64 << 20


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


class BrokerTransport(Transport):
    """To the broker of this host. It reads off the socket who we are, and renews what
    this process holds for as long as it sees it live.

    Args:
        path: the broker's socket.
    """

    kind = "broker"

    def __init__(self, path: str) -> None:
        from jupyter_aistack.system.broker_socket import BrokerSocket

        self._socket = BrokerSocket(path)
        self._pid = 0
        self._spoken_for: SpokenFor | None = None

    def call(self, verb: str, payload: Mapping[str, Any]) -> JSON:
        if self._pid != os.getpid():
            self._spoken_for = _own_kernel()
            self._pid = os.getpid()
        return self._socket.call(verb, payload, self._spoken_for)

    def close(self) -> None:
        self._socket.close()


def _own_kernel() -> SpokenFor | None:
    """The kernel that this process is or was started below, where it was launched
    without a Jupyter server; None for a process of its own.
    """
    from jupyter_aistack.core.wire.protocol import SpokenFor
    from jupyter_aistack.system.kernel_processes import is_launched_kernel

    kernel_id = os.environ.get("AISTACK_KERNEL", "")
    if not kernel_id:
        return None
    if is_launched_kernel(os.getpid(), kernel_id):
        return SpokenFor(pid=os.getpid(), kernel_id=kernel_id)
    return SpokenFor(pid=os.getpid(), parent=kernel_id)
