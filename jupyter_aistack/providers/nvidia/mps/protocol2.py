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
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from jupyter_aistack.exceptions import ProviderError

from .control import MPSControl, MPSLimit, MPSServer
from .users import give_to, user_of


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
        listed = [self._server(int(word)) for word in rest if word.isdecimal()]
        return tuple(server for server in listed if server is not None)

    def open_server(self, limits: Sequence[MPSLimit]) -> None:
        self._allow(limits)
        uid = user_of(self.folder.path)
        self._say(f"start_server -uid {os.getuid() if uid is None else uid}")

    def hold(self, limit: MPSLimit, limits: Sequence[MPSLimit]) -> Path:
        self._allow([*limits, limit])
        give_to(self.folder.pipes, limit.uid)
        return self.folder.pipes

    def drop(self, name: str, limits: Sequence[MPSLimit]) -> None:
        self._allow(limits)

    def clients(
        self, name: str = "", *, servers: Sequence[MPSServer] | None = None
    ) -> frozenset[int]:
        running = self.servers() if servers is None else servers
        return frozenset(pid for server in running for pid in self._clients_of(server))

    def terminate(self, pid: int) -> None:
        for server in self.servers():
            if pid in self._clients_of(server):
                self._say(f"terminate_client {server.pid} {pid}")
                return
        raise ProviderError(f"process {pid} is no client of the MPS server")

    def quit(self) -> None:
        # Without a time it waits for clients that come meanwhile, for as long as they
        # stay.
        self._say(f"quit -t {QUIT_SECONDS}")

    def _server(self, pid: int) -> MPSServer | None:
        """A server that was listed; None where it has ended since."""
        status = self._say_of_server(f"get_server_status {pid}")
        if status is None:
            return None
        return MPSServer(name=str(pid), pid=pid, status=status.strip().upper())

    def _clients_of(self, server: MPSServer) -> list[int]:
        # Only what is a number and nothing else: a sentence may name processes, too.
        answer = self._say_of_server(f"get_client_list {server.pid}") or ""
        lines = [line.strip() for line in answer.splitlines()]
        return [int(line) for line in lines if line.isdecimal()]

    def _say_of_server(self, *lines: str) -> str | None:
        """The answer to questions about one server; None where it has ended."""
        try:
            return self._say(*lines)
        except ProviderError as error:
            if error.facts.get("is_server_gone"):
                return None
            raise

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
            f"set_default_device_pinned_mem_limit {_DEVICE} {mib}M",
        ]
        for server in self.servers():
            lines += [f"set_active_thread_percentage {server.pid} {most}"]
            lines += [f"set_device_pinned_mem_limit {server.pid} {_DEVICE} {mib}M"]
        self._say_of_server(*lines)
        self._check_kept(most, mib)

    def _check_kept(self, percent: int, mib: int) -> None:
        """Read the limits back: a limit of memory is set, or not, without a word."""
        shown, *memory = [*self._say(_PERCENT, _MEMORY).split(), ""]
        if _number(shown) > percent:
            raise ProviderError(
                f"MPS does not keep the limit of {percent} percent that it was given"
            )
        if not _is_limit(memory[0], mib):
            raise ProviderError(
                f"MPS does not keep the limit of {mib} MiB of memory that it was given"
            )

    def _say(self, *lines: str) -> str:
        return self._ask(line="".join(f"{line}\n" for line in lines))


QUIT_SECONDS = 2
"""How long a daemon that ends waits for its clients before it ends their server."""
_DEVICE = 0
"""Number of the one GPU that the daemon sees."""
_PERCENT = "get_default_active_thread_percentage"
_MEMORY = f"get_default_device_pinned_mem_limit {_DEVICE}"
_UNITS_MIB = {"K": Fraction(1, 1024), "M": Fraction(1), "G": Fraction(1024)}
_SIZE = re.compile(r"(\d+)([KMG])")


def _is_limit(text: str, mib: int) -> bool:
    """Whether the daemon shows a limit of so much memory: in a unit of its choice,
    rounded down (``35G`` for 35942 MiB; measured, 555.58.02).
    """
    size = _SIZE.fullmatch(text)
    if size is None:
        return False
    unit = _UNITS_MIB[size[2]]
    return 0 <= mib - int(size[1]) * unit < unit


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ProviderError(
            f"MPS answers {text[:80].strip()!r} where a number was asked for"
        ) from None
