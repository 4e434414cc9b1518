"""The port to the granting side, and the way over the socket of the Jupyter server that
runs this kernel.

The other way, in this process, is :mod:`.embedded`.
"""

from __future__ import annotations

import json
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from jupyter_aistack.exceptions import LedgerUnavailable, error_from_dict

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
