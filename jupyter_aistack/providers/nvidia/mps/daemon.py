"""One MPS daemon: what it holds, how it is watched, and what follows when something is
wrong with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jupyter_aistack.exceptions import PrepareFailed, ProviderError
from jupyter_aistack.system.processes import is_alive

from .control import ANSWER_SECONDS, MPSControl, MPSLimit
from .lifecycle import DaemonLifecycle
from .paths import DaemonPaths
from .records import DaemonFault, DaemonRecords

MISSES = 2
"""Answers that may be missed in a row before a daemon counts as hanging."""


class Daemon:
    """One daemon for one GPU, or for one lease of it. All methods wait for their turn
    among all processes of the user.

    Args:
        folder: its folder.
        gpu: the GPU's UUID.
        index: the GPU's number, for its server's name and for people.
        pause: how to let some seconds pass.
        answer_seconds: how long an answer may take.
    """

    def __init__(
        self,
        folder: DaemonPaths,
        gpu: str,
        index: int,
        *,
        pause: Callable[[float], object] = time.sleep,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        folder.create()
        self.folder = folder
        self.gpu = gpu
        self.index = index
        self.records = DaemonRecords(folder)
        self._life = DaemonLifecycle(
            folder, self.records, gpu, index, pause=pause, answer_seconds=answer_seconds
        )
        self._own: dict[str, MPSLimit] = {}
        self._running = self.records.running()
        self._clients: frozenset[int] = frozenset()
        self._misses = 0
        self._lost = ""

    @property
    def protocol(self) -> int:
        """The protocol it speaks; 0 when it does not run."""
        running = self.records.running()
        return running.protocol if running else 0

    @property
    def trouble(self) -> DaemonFault | None:
        """What is wrong and not over."""
        if self._lost:
            return DaemonFault(
                message=f"lost the folder of its MPS daemon for good: {self._lost}"
            )
        return self.records.trouble()

    @property
    def is_lost(self) -> bool:
        """Whether its folder is gone and cannot be made again: a session's runtime
        folder goes with the session.
        """
        return bool(self._lost)

    @property
    def is_well(self) -> bool:
        """Whether its process runs and nothing is known to be wrong with it."""
        running = self.records.running()
        return running is not None and running.is_alive and self.trouble is None

    # -- holding leases ----------------------------------------------------------------

    def hold(self, limit: MPSLimit, *, protocol: int, slots: int) -> Path:
        """Hold a lease to its limit, starting the daemon if need be; gives the
        directory its clients must name.

        Raises:
            PrepareFailed: the lease cannot be held: no slot is left, or the GPU is not
                there.
            ProviderError: there is no daemon to hold it.
        """
        self._restore()
        with self.records.locked():
            control = self._ready(protocol)
            self._check_slots(control, limit.name, slots)
            try:
                directory = control.hold(limit, self.records.limits(beside=limit.name))
            except ProviderError:
                with contextlib.suppress(ProviderError):
                    self._stop_if_unused()
                raise
            self.records.enter(limit)
            self._own[limit.name] = limit
            self._running = self.records.running()
            return directory

    def _check_slots(self, control: MPSControl, name: str, slots: int) -> None:
        entries = self.records.entries()
        if name not in entries and max(len(entries), len(control.clients())) >= slots:
            raise PrepareFailed(
                f"the MPS server of GPU {self.index} has {slots} clients, and takes no more"
            )

    def _restore(self) -> None:
        """Write down anew what is known, when the folder was cleaned away under a
        running daemon.
        """
        if self.folder.leases.exists():
            return
        self.folder.create()
        if (
            self.records.running() is None
            and self._running is not None
            and self._running.is_alive
        ):
            self.records.write_running(self._running)
        known = self.records.entries()
        for name, limit in self._own.items():
            if name not in known:
                self.records.enter(limit)

    def drop(self, name: str) -> None:
        """Hold a lease no longer; the last lease ends the daemon as soon as it has no
        clients.
        """
        self._restore()
        with self.records.locked():
            self._own.pop(name, None)
            self.records.remove(name)
            running = self.records.running()
            if running is not None and running.is_alive:
                self._life.control().drop(name, self.records.limits())
                self._stop_if_unused()

    def clients(self, name: str) -> frozenset[int]:
        """Processes connected for a lease. Raises `ProviderError`."""
        with self.records.locked():
            return self._life.control().clients(name)

    def terminate(self, pid: int) -> None:
        """End the work of a client. Raises `ProviderError`."""
        with self.records.locked():
            self._life.control().terminate(pid)

    # -- watching ----------------------------------------------------------------------

    def check(self) -> None:
        """Look whether all is well; see to it where it is not, as far as no client is
        harmed. Raises nothing.
        """
        try:
            self._restore()
        except (ProviderError, OSError) as error:
            self._lost = str(error)
            return
        self._lost = ""
        with contextlib.suppress(ProviderError, OSError):
            self._check_locked()

    def _check_locked(self) -> None:
        with self.records.locked():
            trouble = self.trouble
            running = self.records.running()
            if trouble is not None:
                self._recover(trouble)
            elif running is not None:
                self._look()

    def _look(self) -> None:
        control = self._life.control()
        try:
            servers = control.servers()
            clients = control.clients(servers=servers)
        except ProviderError as error:
            self._miss(error)
            return
        self._misses = 0
        if not servers and (control.needs_server or self._affected()):
            self._life.end()
            self._restart(control.protocol)
            return
        self._clients = clients
        self._life.note_servers(servers)
        self._running = self.records.running()
        logged = self._life.logs.new_fault(clients)
        if logged is not None or any(server.is_faulty for server in servers):
            self._close_after_fault(logged.pid if logged else None, clients)
            return
        self._drop_orphans(clients)
        control.sweep(self.records.entries())
        self._stop_if_unused()

    def _miss(self, error: ProviderError) -> None:
        """The daemon did not answer: it has ended, or its directory is gone, or it
        hangs.
        """
        running = self.records.running()
        if running is None or not running.is_alive:
            self._restart(self.protocol)
            return
        affected = self._affected()
        self._misses += 1
        if not self._is_listening:
            what = "lost the directory of its MPS daemon, which was removed"
            self._close(
                DaemonFault(
                    message=f"{what}; it opens when its processes have ended",
                    affected=affected,
                )
            )
        elif self._misses >= MISSES:
            what = f"has an MPS daemon that does not answer ({error.message})"
            self._close(DaemonFault(message=what, affected=affected, heals=True))

    def _close_after_fault(self, culprit: int | None, clients: frozenset[int]) -> None:
        who = f"process {culprit}" if culprit else "a process that MPS does not name"
        others = (
            f"; it opens when {_names(clients)} {'has' if len(clients) == 1 else 'have'} ended"
            if clients
            else ""
        )
        message = f"was closed: {who} caused a fault that broke the work of all who share it{others}"
        self._close(
            DaemonFault(message=message, pid=culprit, affected=tuple(sorted(clients)))
        )

    def _close(self, trouble: DaemonFault) -> None:
        self.records.write_trouble(trouble)

    def _affected(self) -> tuple[int, ...]:
        """Those who were connected when all was well, and are still there."""
        return tuple(sorted(pid for pid in self._clients if is_alive(pid, None)))

    def _restart(self, protocol: int) -> None:
        """Start what has ended: without a server, a process that starts now would have
        the whole GPU.
        """
        affected = self._affected()
        try:
            self._begin(protocol)
        except ProviderError as error:
            message = (
                f"lost its MPS daemon, which does not start again: {error.message}"
            )
            self._close(
                DaemonFault(message=message, affected=affected, protocol=protocol)
            )
            return
        if affected:
            message = f"had its MPS daemon end and start anew; {_names(affected)} must be started again"
            self.records.write_trouble(
                DaemonFault(message=message, affected=affected, is_closed=False)
            )

    def _recover(self, trouble: DaemonFault) -> None:
        """Open again what is closed, once no client is harmed by it and a fresh server
        has proved that it is well.
        """
        if trouble.heals and self._is_well():
            self.records.write_trouble(None)
            return
        remaining = self._remaining(trouble)
        if remaining:
            self.records.write_trouble(replace(trouble, affected=remaining))
            return
        if trouble.is_closed:
            protocol = self.protocol or trouble.protocol
            try:
                self._life.end()
                self._begin(protocol)
            except ProviderError as error:
                message = f"cannot be opened again: {error.message}"
                self._close(
                    DaemonFault(message=message, pid=trouble.pid, protocol=protocol)
                )
                return
        else:
            self._end_left_servers()
        self._misses = 0
        self.records.write_trouble(None)

    def _end_left_servers(self) -> None:
        """End what is left of a daemon before this one; its clients have gone."""
        with contextlib.suppress(ProviderError):
            servers = self._life.control().servers()
            self._life.end_left_servers(kept=[server.pid for server in servers])

    def _remaining(self, trouble: DaemonFault) -> tuple[int, ...]:
        """Processes that must end first: the affected processes, and any other that the
        daemon reports as connected.
        """
        connected: frozenset[int] = frozenset()
        if trouble.is_closed:
            with contextlib.suppress(ProviderError):
                connected = self._life.control().clients()
        return tuple(
            sorted(
                pid for pid in {*trouble.affected, *connected} if is_alive(pid, None)
            )
        )

    def _is_well(self) -> bool:
        try:
            return not any(
                server.is_faulty for server in self._life.control().servers()
            )
        except ProviderError:
            return False

    @property
    def _is_listening(self) -> bool:
        return (self.folder.pipes / "control").exists()

    # -- beginning and ending ----------------------------------------------------------

    def _ready(self, protocol: int) -> MPSControl:
        """A daemon that answers: the existing daemon, in its own protocol, or a new
        daemon.
        """
        if self.trouble is not None:
            self._recover(self.trouble)
            self._refuse_if_closed()
        running = self.records.running()
        if running is None or not running.is_alive:
            begin = (
                self._restart if self._affected() else self._begin
            )  # the clients that were connected are to be reported
            begin(protocol)
            self._refuse_if_closed()
        control = self._life.control()
        servers = control.servers()
        if any(server.is_faulty for server in servers) or (
            control.needs_server and not servers
        ):
            self._look()
        elif not servers:
            # A client would start it, and learn of its failure in CUDA's words.
            self._life.open_server(control)
        self._refuse_if_closed()
        return self._life.control()

    def _refuse_if_closed(self) -> None:
        trouble = self.trouble
        if trouble is not None and trouble.is_closed:
            raise PrepareFailed(f"GPU {self.index} {trouble.message}")

    def _begin(self, protocol: int) -> None:
        self._life.begin(protocol)
        self._clients = frozenset()
        self._misses = 0

    def _drop_orphans(self, clients: frozenset[int]) -> None:
        """Drop leases whose owner is gone: a server that crashed gives nothing back. A
        client keeps them all.
        """
        if clients:
            return
        for name, entry in self.records.entries().items():
            if entry.is_orphan:
                self.records.remove(name)
                self._life.control().drop(name, self.records.limits())

    def _stop_if_unused(self) -> None:
        if not self.records.entries() and not self._life.control().clients():
            self._life.end()

    def abandon(self) -> None:
        """End the processes of a lost daemon that no lease needs any more: it cannot be
        reached another way, and its servers, which hold the memory, may outlive it.
        """
        if self._running is None:
            return
        for process in self._running.processes:
            if process.is_alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)


def _names(pids: tuple[int, ...] | frozenset[int]) -> str:
    shown = ", ".join(map(str, sorted(pids)))
    return f"process {shown}" if len(pids) == 1 else f"processes {shown}"
