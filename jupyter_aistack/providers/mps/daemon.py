"""The life of one MPS daemon: started or adopted, watched, closed after a fault, begun anew, stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ...exceptions import PrepareFailed, ProviderError
from ...processes import is_alive, started_at
from .control import ANSWER_SECONDS, Control, Limit
from .logs import Logs, last_words
from .paths import Folder
from .protocol2 import Protocol2
from .protocol3 import Protocol3
from .records import Records, Running, Trouble

POLL_SECONDS = 0.1
POLLS = 60
"""How often a daemon is looked at while it starts or ends: six seconds in all, as a kernel that starts waits for it; a
server is ready within one or two."""
ABSENT_POLLS = 20
"""So often in a row a server may be missing from the list before it counts as dead: one with a GPU that is not there
is made without complaint, and ends by itself."""
MISSES = 2
"""Answers that may be missed in a row before a daemon counts as hanging."""
PID_FILE = "nvidia-cuda-mps-control.pid"

_PROTOCOLS: dict[int, type[Control]] = {2: Protocol2, 3: Protocol3}


class Daemon:
    """One daemon for one GPU, or for one lease of it. All methods wait for their turn among all processes of the user.

    Args:
        folder: its folder.
        gpu: the GPU's UUID.
        index: the GPU's number, for its server's name and for people.
        pause: how to let some seconds pass.
        answer_seconds: how long an answer may take.
    """

    def __init__(
        self,
        folder: Folder,
        gpu: str,
        index: int,
        *,
        pause: Callable[[float], object] = time.sleep,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        folder.create()
        self.folder, self.gpu, self.index = folder, gpu, index
        self.records = Records(folder)
        self._pause, self._answer_seconds = pause, answer_seconds
        self._control: Control | None = None
        self._own: dict[str, Limit] = {}
        self._running = self.records.running()
        self._logs = Logs(folder.logs, from_end=True)
        self._clients: frozenset[int] = frozenset()
        self._misses = 0
        self._lost = ""

    @property
    def protocol(self) -> int:
        """The protocol it speaks; 0 when it does not run."""
        running = self.records.running()
        return running.protocol if running else 0

    @property
    def trouble(self) -> Trouble | None:
        """What is wrong and not over."""
        if self._lost:
            return Trouble(message=f"lost the folder of its MPS daemon for good: {self._lost}")
        return self.records.trouble()

    @property
    def is_lost(self) -> bool:
        """Whether its folder is gone and cannot be made again: a session's runtime folder goes with the session."""
        return bool(self._lost)

    # -- holding leases -----------------------------------------------------------------------------------------

    def hold(self, limit: Limit, *, protocol: int, slots: int) -> Path:
        """Hold a lease to its limit, starting the daemon if need be; gives the directory its clients must name.

        Raises:
            PrepareFailed: the lease cannot be held: no slot is left, or the GPU is not there.
            ProviderError: there is no daemon to hold it.
        """
        self._restore()
        with self.records.locked():
            control = self._ready(protocol)
            self._check_slots(control, limit.name, slots)
            directory = control.hold(limit, self.records.limits(beside=limit.name))
            self.records.enter(limit)
            self._own[limit.name], self._running = limit, self.records.running()
            return directory

    def _check_slots(self, control: Control, name: str, slots: int) -> None:
        entries = self.records.entries()
        if name not in entries and max(len(entries), len(control.clients())) >= slots:
            raise PrepareFailed(f"the MPS server of GPU {self.index} has {slots} clients, and takes no more")

    def _restore(self) -> None:
        """Write down anew what is known, when somebody has cleaned the folder away under a running daemon."""
        if self.folder.leases.exists():
            return
        self.folder.create()
        if self.records.running() is None and self._running is not None and self._running.is_alive:
            self.records.write_running(self._running)
        known = self.records.entries()
        for name, limit in self._own.items():
            if name not in known:
                self.records.enter(limit)

    def drop(self, name: str) -> None:
        """Hold a lease no longer; the last one ends the daemon as soon as it has no clients."""
        self._restore()
        with self.records.locked():
            self._own.pop(name, None)
            self.records.strike(name)
            running = self.records.running()
            if running is not None and running.is_alive:
                self._speaking().drop(name, self.records.limits())
                self._stop_if_unused()

    def clients(self, name: str) -> frozenset[int]:
        """Processes connected for a lease. Raises `ProviderError`."""
        with self.records.locked():
            return self._speaking().clients(name)

    def terminate(self, pid: int) -> None:
        """End the work of a client. Raises `ProviderError`."""
        with self.records.locked():
            self._speaking().terminate(pid)

    # -- watching -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Look whether all is well; see to it where it is not, as far as nobody is harmed. Raises nothing."""
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
        control = self._speaking()
        try:
            servers = control.servers()
            clients = control.clients()
        except ProviderError as error:
            self._miss(error)
            return
        self._misses = 0
        if control.needs_server and not servers:
            self._end()
            self._restart(control.protocol)
            return
        self._clients = clients
        logged = self._logs.new_fault()
        if logged is not None or any(server.is_faulty for server in servers):
            self._close_after_fault(logged.pid if logged else None, clients)
            return
        self._drop_orphans(clients)
        control.sweep(self.records.entries())
        self._stop_if_unused()

    def _miss(self, error: ProviderError) -> None:
        """The daemon did not answer: it has ended, or its directory is gone, or it hangs."""
        running = self.records.running()
        if running is None or not running.is_alive:
            self._restart(self.protocol)
            return
        affected = self._affected()
        self._misses += 1
        if not self._is_listening:
            what = "lost the directory of its MPS daemon, which somebody removed"
            self._close(Trouble(message=f"{what}; it opens when its processes have ended", affected=affected))
        elif self._misses >= MISSES:
            what = f"has an MPS daemon that does not answer ({error.message})"
            self._close(Trouble(message=what, affected=affected, heals=True))

    def _close_after_fault(self, culprit: int | None, clients: frozenset[int]) -> None:
        who = f"process {culprit}" if culprit else "a process that MPS does not name"
        others = f"; it opens when {_names(clients)} {'has' if len(clients) == 1 else 'have'} ended" if clients else ""
        message = f"was closed: {who} caused a fault that broke the work of all who share it{others}"
        self._close(Trouble(message=message, pid=culprit, affected=tuple(sorted(clients))))

    def _close(self, trouble: Trouble) -> None:
        self.records.write_trouble(trouble)

    def _affected(self) -> tuple[int, ...]:
        """Those who were connected when all was well, and are still there."""
        return tuple(sorted(pid for pid in self._clients if is_alive(pid, None)))

    def _restart(self, protocol: int) -> None:
        """Start what has ended: without a server, a process that starts now would have the whole GPU."""
        affected = self._affected()
        try:
            self._begin(protocol)
        except ProviderError as error:
            message = f"lost its MPS daemon, which does not start again: {error.message}"
            self._close(Trouble(message=message, affected=affected, protocol=protocol))
            return
        if affected:
            message = f"had its MPS daemon end and start anew; {_names(affected)} must be started again"
            self.records.write_trouble(Trouble(message=message, affected=affected, is_closed=False))

    def _recover(self, trouble: Trouble) -> None:
        """Open again what is closed, once nobody is harmed by it and a fresh server has proved that it is well."""
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
                self._end()
                self._begin(protocol)
            except ProviderError as error:
                message = f"cannot be opened again: {error.message}"
                self._close(Trouble(message=message, pid=trouble.pid, protocol=protocol))
                return
        self._misses = 0
        self.records.write_trouble(None)

    def _remaining(self, trouble: Trouble) -> tuple[int, ...]:
        """Processes that must end first: the affected ones, and whoever else the daemon says is connected."""
        connected: frozenset[int] = frozenset()
        if trouble.is_closed:
            with contextlib.suppress(ProviderError):
                connected = self._speaking().clients()
        return tuple(sorted(pid for pid in {*trouble.affected, *connected} if is_alive(pid, None)))

    def _is_well(self) -> bool:
        try:
            return not any(server.is_faulty for server in self._speaking().servers())
        except ProviderError:
            return False

    @property
    def _is_listening(self) -> bool:
        return (self.folder.pipes / "control").exists()

    # -- beginning and ending -----------------------------------------------------------------------------------

    def _ready(self, protocol: int) -> Control:
        """A daemon that answers: the one there is, in its own protocol, or a new one."""
        if self.trouble is not None:
            self._recover(self.trouble)
            self._refuse_if_closed()
        running = self.records.running()
        if running is None or not running.is_alive:
            self._begin(protocol)
        servers = self._speaking().servers()
        if any(server.is_faulty for server in servers) or (self._speaking().needs_server and not servers):
            self._look()
        self._refuse_if_closed()
        return self._speaking()

    def _refuse_if_closed(self) -> None:
        trouble = self.trouble
        if trouble is not None and trouble.is_closed:
            raise PrepareFailed(f"GPU {self.index} {trouble.message}")

    def _speaking(self, protocol: int = 0) -> Control:
        running = self.records.running()
        wanted = _PROTOCOLS[protocol or (running.protocol if running else 2)]
        index = running.index if running else self.index
        if self._control is None or type(self._control) is not wanted or self._control.index != index:
            self._control = wanted(self.folder, self.gpu, index, seconds=self._answer_seconds)
        return self._control

    def _begin(self, protocol: int) -> None:
        """Start a daemon with a server that is ready, holding all leases written down. Raises as `hold` does."""
        self._clear()
        control = self._speaking(protocol)
        control.start()
        pid = self._started_pid()
        self.records.write_running(Running(pid=pid, started_at=started_at(pid), protocol=protocol, index=self.index))
        try:
            control = self._follow(control)
            limits = self.records.limits()
            control.open_server(limits)
            self._await_server(control)
            control.keep_strays_small()
            for limit in limits:
                control.hold(limit, [other for other in limits if other is not limit])
        except ProviderError:
            self._end()
            raise
        self._clients, self._misses = frozenset(), 0

    def _follow(self, control: Control) -> Control:
        """The control in the protocol that the daemon turns out to speak."""
        try:
            control.servers()
            return control
        except ProviderError:
            other = self._speaking({2: 3, 3: 2}[control.protocol])
            other.servers()
            running = self.records.running()
            assert running is not None
            self.records.write_running(replace(running, protocol=other.protocol))
            return other

    def _started_pid(self) -> int:
        for _ in range(POLLS):
            with contextlib.suppress(OSError, ValueError):
                return int((self.folder.pipes / PID_FILE).read_text())
            self._pause(POLL_SECONDS)
        raise ProviderError("the MPS daemon started and does not say as which process")

    def _await_server(self, control: Control) -> None:
        absent = 0
        for _ in range(POLLS):
            servers = control.servers()
            if any(server.is_ready for server in servers):
                return
            absent = 0 if servers else absent + 1
            if absent >= ABSENT_POLLS:
                said = last_words(self.folder.logs)
                why = f" ({said})" if said else ""
                raise PrepareFailed(f"the MPS server of GPU {self.index} ({self.gpu}) ended as soon as it started{why}")
            self._pause(POLL_SECONDS)
        raise ProviderError(f"the MPS server did not become ready within {POLLS * POLL_SECONDS:.0f} seconds")

    def _drop_orphans(self, clients: frozenset[int]) -> None:
        """Drop leases whose keeper is gone: a server that crashed gives nothing back. A client keeps them all."""
        if clients:
            return
        for name, entry in self.records.entries().items():
            if entry.is_orphan:
                self.records.strike(name)
                self._speaking().drop(name, self.records.limits())

    def _stop_if_unused(self) -> None:
        if not self.records.entries() and not self._speaking().clients():
            self._end()

    def _end(self) -> None:
        """End the daemon, which has no clients: politely, else by its process id."""
        running = self.records.running()
        if running is not None and running.is_alive:
            with contextlib.suppress(ProviderError):
                self._speaking().quit()
            for number in (None, signal.SIGTERM, signal.SIGKILL):
                if self._is_over(number):
                    break
        self._clear()

    def _is_over(self, number: signal.Signals | None) -> bool:
        """Whether the daemon has ended, after a signal or of its own."""
        running = self.records.running()
        assert running is not None
        if number is not None and running.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, number)
        for _ in range(POLLS // 4):
            if not running.is_alive:
                return True
            self._pause(POLL_SECONDS)
        return False

    def abandon(self) -> None:
        """End the process of a lost daemon that no lease needs any more; nobody can reach it another way."""
        if self._running is not None and self._running.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._running.pid, signal.SIGTERM)

    def _clear(self) -> None:
        """Leave nothing of a daemon that has ended but its leases, and its logs for people."""
        self.records.forget_running()
        shutil.rmtree(self.folder.pipes, ignore_errors=True)
        self.folder.create()
        for log in (*self.folder.logs.glob("*.log"), *self.folder.logs.glob("*/server.log")):
            log.replace(log.with_suffix(".old"))
        self._logs = Logs(self.folder.logs)
        self._control = None


def _names(pids: tuple[int, ...] | frozenset[int]) -> str:
    shown = ", ".join(map(str, sorted(pids)))
    return f"process {shown}" if len(pids) == 1 else f"processes {shown}"
