"""What is written down of a daemon, so that several processes of one user can look
after it together.

All in the daemon's own folder: which process it is, what its leases may use, and what
is wrong with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jupyter_aistack.core.model.process import Liveness, ProcessIdentity
from jupyter_aistack.system.files import write_atomic
from jupyter_aistack.system.processes import (
    is_alive,
    liveness,
    pid_namespace,
    started_at,
)

from .control import MPSLimit
from .paths import DaemonPaths


@dataclass(frozen=True, kw_only=True)
class ServerProcess:
    """The process of an MPS server (see `processes.started_at`)."""

    pid: int
    started_at: float | None

    @property
    def is_alive(self) -> bool:
        return is_alive(self.pid, self.started_at)


@dataclass(frozen=True, kw_only=True)
class DaemonRecord:
    """A daemon that was started.

    Attributes:
        pid, started_at: its process (see `processes.started_at`).
        protocol: what it speaks.
        index: the number its GPU had then, after which its server is called.
        servers: its servers, and those that daemons before it left behind: they hold
            the memory, and a daemon that is killed does not end them.
    """

    pid: int
    started_at: float | None
    protocol: int
    index: int
    servers: tuple[ServerProcess, ...] = ()

    @property
    def is_alive(self) -> bool:
        return is_alive(self.pid, self.started_at)

    @property
    def processes(self) -> tuple[ServerProcess, ...]:
        """Its own process, and those of its servers."""
        own = ServerProcess(pid=self.pid, started_at=self.started_at)
        return (own, *self.servers)


@dataclass(frozen=True, kw_only=True)
class DaemonFault:
    """What has gone wrong with a daemon and is not over.

    Attributes:
        message: one sentence that follows the GPU's name.
        pid: the client that caused it; None when it is not known.
        affected: clients whose work is lost; it is over when they have gone.
        is_closed: the daemon accepts no client until then.
        heals: it is over as soon as the daemon answers again.
        protocol: what the daemon spoke that is to be started again, where none is left.
    """

    message: str
    pid: int | None = None
    affected: tuple[int, ...] = ()
    is_closed: bool = True
    heals: bool = False
    protocol: int = 2


@dataclass(frozen=True, kw_only=True)
class DaemonLease:
    """A lease of a daemon: its limit, and the process that looks after it."""

    limit: MPSLimit
    owner: int
    owner_started_at: float | None
    owner_namespace: int | None = None

    @property
    def is_orphan(self) -> bool:
        """Whether that process is known to have ended; one of another container is
        not.
        """
        owner = ProcessIdentity(
            pid=self.owner,
            started=self.owner_started_at,
            pid_namespace=self.owner_namespace,
        )
        return liveness(owner) is Liveness.GONE


class DaemonRecords:
    """The files of one daemon's folder. What cannot be read counts as not written."""

    def __init__(self, folder: DaemonPaths) -> None:
        self.folder = folder
        self._daemon = folder.path / "daemon.json"
        self._trouble = folder.path / "trouble.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the daemon, among all threads and processes. Waits for its
        turn.
        """
        import fcntl  # not everywhere; nor is MPS

        with (self.folder.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def running(self) -> DaemonRecord | None:
        data = _read(self._daemon)
        if data is None:
            return None
        servers = tuple(ServerProcess(**each) for each in data.get("servers", ()))
        return DaemonRecord(**{**data, "servers": servers})

    def write_running(self, running: DaemonRecord) -> None:
        _write(self._daemon, asdict(running))

    def trouble(self) -> DaemonFault | None:
        data = _read(self._trouble)
        return (
            None
            if data is None
            else DaemonFault(**{**data, "affected": tuple(data["affected"])})
        )

    def write_trouble(self, trouble: DaemonFault | None) -> None:
        if trouble is None:
            self._trouble.unlink(missing_ok=True)
        else:
            _write(self._trouble, asdict(trouble))

    def forget_running(self) -> None:
        self._daemon.unlink(missing_ok=True)

    def entries(self) -> dict[str, DaemonLease]:
        """The leases by name."""
        files = {
            path.stem: _read(path) for path in sorted(self.folder.leases.glob("*.json"))
        }
        return {name: _entry(data) for name, data in files.items() if data is not None}

    def limits(self, *, beside: str = "") -> list[MPSLimit]:
        """The limits of all leases, or of those beside a given lease."""
        return [entry.limit for name, entry in self.entries().items() if name != beside]

    def enter(self, limit: MPSLimit) -> None:
        """Write a lease down; a process that manages it already goes on doing so."""
        known = self.entries().get(limit.name)
        own = known is None or known.is_orphan
        owner = os.getpid() if known is None or own else known.owner
        since = started_at(owner) if known is None or own else known.owner_started_at
        place = pid_namespace() if known is None or own else known.owner_namespace
        written = DaemonLease(
            limit=limit, owner=owner, owner_started_at=since, owner_namespace=place
        )
        _write(self._lease(limit.name), asdict(written))

    def remove(self, name: str) -> None:
        """Take a lease off the list; a lease that is not there is gone already."""
        self._lease(name).unlink(missing_ok=True)

    def _lease(self, name: str) -> Path:
        return self.folder.leases / f"{name}.json"


def _entry(data: dict[str, Any]) -> DaemonLease:
    return DaemonLease(**{**data, "limit": MPSLimit(**data["limit"])})


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _write(path: Path, data: dict[str, Any]) -> None:
    # Whole or not at all: others read without the lock.
    write_atomic(path, json.dumps(data))
