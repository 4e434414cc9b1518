"""Asking the root helper."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.system.peer import peer_of

SOCKET = Path("/run/aistack/dmem.sock")
ANSWER_SECONDS = 5.0


class DmemClient:
    """The broker's end.

    Args:
        path: the helper's socket.
        trusted: users that a helper may run as; the limits of any other user would be
            worth nothing.
    """

    def __init__(self, path: Path = SOCKET, *, trusted: Collection[int] = (0,)) -> None:
        self.path = path
        self._trusted = frozenset(trusted)

    @property
    def is_installed(self) -> bool:
        """Whether there is a helper to ask at all."""
        return self.path.exists()

    def refusal(self) -> str:
        """Why the helper cannot be used; empty when it answers."""
        if not self.is_installed:
            how = (
                "start it"
                if os.geteuid() == 0
                else "ask an administrator to install it"
            )
            return f"the root helper for memory limits does not listen at {self.path}; {how} (docs/enforcement.md)"
        try:
            self._ask("hello")
        except ProviderError as error:
            return error.message
        return ""

    def hold(self, lease: str, gpu: str, memory_bytes: int) -> None:
        """Make a lease's group, and limit its memory on a GPU. Raises
        `ProviderError`.
        """
        self._ask("hold", lease=lease, gpu=gpu, bytes=memory_bytes)

    def enter(self, lease: str, pid: int) -> None:
        """Move a process into the lease's group, before it starts CUDA. Raises
        `ProviderError`.
        """
        self._ask("enter", lease=lease, pid=pid)

    def used(self) -> dict[str, dict[str, int]]:
        """Bytes in use by lease and GPU index. Raises `ProviderError`."""
        leases: dict[str, dict[str, int]] = self._ask("list")["leases"]
        return leases

    def drop(self, lease: str) -> None:
        """Remove a lease's group; a group that is not there is gone already. Raises
        `ProviderError`.
        """
        self._ask("drop", lease=lease)

    def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(ANSWER_SECONDS)
                line.connect(str(self.path))
                self._check_peer(line)
                line.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
                answer = json.loads(line.makefile().readline())
        except (OSError, ValueError) as error:
            raise ProviderError(
                f"the root helper at {self.path} does not answer: {error}"
            ) from error
        if not isinstance(answer, dict) or not answer.get("ok"):
            reason = answer.get("message") if isinstance(answer, dict) else None
            raise ProviderError(f"the root helper refuses {op}: {reason}")
        return answer

    def _check_peer(self, line: socket.socket) -> None:
        uid = peer_of(line).uid
        if uid not in self._trusted:
            raise ProviderError(
                f"the helper at {self.path} is run by user {uid}, not by root"
            )
