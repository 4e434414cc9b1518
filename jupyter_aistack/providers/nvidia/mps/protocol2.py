"""MPS protocol 2: a line of text in, lines of text out (NVIDIA MPS documentation,
"Legacy MPS v2 Interface").

It knows no leases: every client of a daemon has the daemon's limits, and may lower them
by its own environment. So the
daemon allows what its largest lease has, and each lease's environment brings that down
to its own. A client that drops its environment is still held to the largest. Where the
daemon has one lease, that is its own limit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jupyter_aistack.exceptions import ProviderError

from .control import MPSControl, MPSLimit, MPSServer


class Protocol2(MPSControl):
    """A daemon that speaks protocol 2."""

    protocol = 2

    def arguments(self) -> tuple[str, ...]:
        return ("-d",)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "CUDA_MPS_PROTOCOL_VERSION": "2"}

    def servers(self) -> tuple[MPSServer, ...]:
        # A daemon without servers has to prove that it lives, too: a list of none looks
        # like no answer.
        first, *rest = [*self._say(_PERCENT, "get_server_list").split(), ""]
        _number(first)
        pids = [int(word) for word in rest if word.isdecimal()]
        return tuple(
            MPSServer(name=str(pid), pid=pid, status=self._status(pid)) for pid in pids
        )

    def open_server(self, limits: Sequence[MPSLimit]) -> None:
        self._allow(limits)
        self._say(f"start_server -uid {os.getuid()}")

    def hold(self, limit: MPSLimit, limits: Sequence[MPSLimit]) -> Path:
        self._allow([*limits, limit])
        return self.folder.pipes

    def drop(self, name: str, limits: Sequence[MPSLimit]) -> None:
        self._allow(limits)

    def clients(self, name: str = "") -> frozenset[int]:
        return frozenset(
            pid for server in self.servers() for pid in self._clients_of(server)
        )

    def terminate(self, pid: int) -> None:
        for server in self.servers():
            if pid in self._clients_of(server):
                self._say(f"terminate_client {server.pid} {pid}")
                return
        raise ProviderError(f"process {pid} is no client of the MPS server")

    def quit(self) -> None:
        self._say("quit")

    def _status(self, pid: int) -> str:
        return self._say(f"get_server_status {pid}").strip().upper()

    def _clients_of(self, server: MPSServer) -> list[int]:
        return [
            int(word)
            for word in self._say(f"get_client_list {server.pid}").split()
            if word.isdecimal()
        ]

    def _allow(self, limits: Sequence[MPSLimit]) -> None:
        """Let servers to come, and clients to come of those there are, have as much as
        the largest of `limits`.
        """
        if not limits:
            return
        most = max(limit.percent for limit in limits)
        mib = max(limit.mib for limit in limits)
        # By number: the daemon sees one GPU, a name it does not know is ignored, and
        # old daemons know no UUIDs.
        lines = [
            f"set_default_active_thread_percentage {most}",
            f"set_default_device_pinned_mem_limit 0 {mib}M",
        ]
        for server in self.servers():
            lines += [f"set_active_thread_percentage {server.pid} {most}"]
            lines += [f"set_device_pinned_mem_limit {server.pid} 0 {mib}M"]
        self._say(*lines)
        if _number(self._say(_PERCENT)) > most:
            raise ProviderError(
                f"MPS does not keep the limit of {most} percent that it was given"
            )

    def _say(self, *lines: str) -> str:
        return self._ask(line="".join(f"{line}\n" for line in lines))


_PERCENT = "get_default_active_thread_percentage"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ProviderError(
            f"MPS answers {text[:80].strip()!r} where a number was asked for"
        ) from None
