"""Asking one MPS daemon: the control program is run, and its answer read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyter_aistack.exceptions import ProviderError

from .paths import DaemonPaths

PROGRAM = "nvidia-cuda-mps-control"
ANSWER_SECONDS = 5.0
"""How long the control program may take; it answers within milliseconds, so a call that
takes longer means a daemon that hangs.
"""
_REFUSAL = re.compile(
    r"\b(?:unknown|unrecognized|invalid|error|failed|cannot|not found|no default)\b",
    re.IGNORECASE,
)
_SERVER_GONE = re.compile(r"Server \S+ not found", re.IGNORECASE)
"""A question about a server that has ended; the program's own status is 0 then, too
(measured, 555.58.02).
"""


@dataclass(frozen=True, kw_only=True)
class MPSServer:
    """An MPS server of a daemon.

    Attributes:
        name: as the daemon calls it: a name, or in protocol 2 its process id.
        pid: its process; 0 when unknown.
        status: in the daemon's word, upper case: READY, ACTIVE, INITIALIZING, FAULT,
            ...
    """

    name: str
    pid: int
    status: str

    @property
    def is_ready(self) -> bool:
        return self.status in ("READY", "ACTIVE")

    @property
    def is_faulty(self) -> bool:
        return "FAULT" in self.status


@dataclass(frozen=True, kw_only=True)
class MPSLimit:
    """What the clients of one lease may use of the daemon's GPU.

    Attributes:
        name: the lease, as `paths.short` names it.
        percent: of the multiprocessors, 1 to 100.
        mib: of memory.
        uid: the user whose alone its clients' directory is; None for the daemon's own.
    """

    name: str
    percent: int
    mib: int
    uid: int | None = None


class MPSControl(ABC):
    """One daemon, spoken to in one version of its protocol.

    Args:
        folder: the daemon's folder.
        gpu: UUID of the one GPU it serves.
        index: that GPU's number on the host.
        seconds: how long an answer may take.
    """

    protocol: int
    needs_server: bool = False
    """Whether clients find no limit while the daemon has no server."""

    def __init__(
        self,
        folder: DaemonPaths,
        gpu: str,
        index: int,
        *,
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.folder = folder
        self.gpu = gpu
        self.index = index
        self._seconds = seconds

    @abstractmethod
    def arguments(self) -> tuple[str, ...]:
        """What makes the control program start the daemon."""

    @abstractmethod
    def servers(self) -> tuple[MPSServer, ...]:
        """The daemon's servers; the round trip by which it is known to live. Raises
        `ProviderError`.
        """

    @abstractmethod
    def open_server(self, limits: Sequence[MPSLimit]) -> None:
        """Have the daemon start a server; it is ready when `servers` says so. Raises
        `ProviderError`.
        """

    def limit_orphan_memory(self) -> None:  # noqa: B027 - protocol 2 knows no strays
        """Leave next to nothing to a process that reaches a ready server by no lease.
        Raises `ProviderError`.
        """

    @abstractmethod
    def hold(self, limit: MPSLimit, limits: Sequence[MPSLimit]) -> Path:
        """Set one lease's limit beside those of the others, and give the directory its
        clients must name.

        Raises:
            ProviderError: it is not set; no client was given a directory that would
                hold nothing.
        """

    @abstractmethod
    def drop(self, name: str, limits: Sequence[MPSLimit]) -> None:
        """Take one lease's limit back, or leave it to `sweep` while it has clients;
        `limits` remain.

        Raises:
            ProviderError: the daemon does not.
        """

    def sweep(self, kept: Collection[str]) -> None:  # noqa: B027 - protocol 2 has nothing of a lease to sweep
        """Remove what is left of leases that are not `kept`, once no client uses it.
        Raises `ProviderError`.
        """

    @abstractmethod
    def clients(
        self, name: str = "", *, servers: Sequence[MPSServer] | None = None
    ) -> frozenset[int]:
        """Processes connected for one lease, as far as the daemon tells them apart, or
        for all. Raises as above.

        Args:
            servers: the daemon's servers, where the caller has just asked for them.
        """

    @abstractmethod
    def terminate(self, pid: int) -> None:
        """End the work of one client. Raises `ProviderError`."""

    @abstractmethod
    def quit(self) -> None:
        """End the daemon and its servers. Raises `ProviderError`."""

    def environment(self) -> dict[str, str]:
        """What the daemon and those who speak to it are run with: nothing of another
        daemon's.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CUDA_")
        }
        return {
            **kept,
            "CUDA_VISIBLE_DEVICES": self.gpu,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_MPS_PIPE_DIRECTORY": str(self.folder.pipes),
            "CUDA_MPS_LOG_DIRECTORY": str(self.folder.logs),
        }

    def start(self) -> None:
        """Start the daemon in the background. Raises `ProviderError`."""
        log = self.folder.path / "start.log"
        with log.open(
            "w+"
        ) as output:  # a file: a pipe would stay open for as long as the daemon lives
            code = self._run(self.arguments(), output)
            output.seek(0)
            if code:
                raise ProviderError(
                    f"{PROGRAM} ended with status {code}: {_last_line(output.read())}"
                )

    def _run(self, arguments: Sequence[str], output: object) -> int:
        command = [_program(), *arguments]
        options: dict[str, object] = {
            "stdout": output,
            "stderr": subprocess.STDOUT,
            "stdin": subprocess.DEVNULL,
        }
        try:
            done = subprocess.run(  # type: ignore[call-overload]
                command,
                env=self.environment(),
                timeout=self._seconds,
                start_new_session=True,
                **options,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProviderError(_unanswered(error, self._seconds)) from error
        return int(done.returncode)

    def _ask(self, *arguments: str, line: str | None = None) -> str:
        """The program's answer to arguments, or to a line on its input."""
        try:
            done = subprocess.run(
                [_program(), *arguments],
                input=line,
                stdin=subprocess.DEVNULL if line is None else None,
                capture_output=True,
                text=True,
                env=self.environment(),
                timeout=self._seconds,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProviderError(_unanswered(error, self._seconds)) from error
        if done.returncode or _is_refusal(done.stdout):
            asked = (line or " ".join(arguments)).strip()
            raise ProviderError(
                f"MPS refuses {asked!r}: {_last_line(done.stdout + done.stderr)}",
                is_server_gone=bool(_SERVER_GONE.search(done.stdout)),
            )
        return str(done.stdout)


def _program() -> str:
    path = shutil.which(PROGRAM)
    if path is None:
        raise ProviderError(f"{PROGRAM} is not on the server's PATH")
    return path


def _unanswered(error: Exception, seconds: float) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"the MPS daemon did not answer within {seconds:g} seconds"
    return f"{PROGRAM} cannot be run: {error}"


def _is_refusal(text: str) -> bool:
    """Whether an answer says no although its status does not. A row of a list may have
    any word, but the first.
    """
    lines = text.splitlines()
    return any(
        _REFUSAL.match(line) or ("," not in line and _REFUSAL.search(line))
        for line in lines
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gives no reason"
