"""The life of an MPS daemon: how it is started and how it is ended."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.system.process_exit import ProcessExit
from jupyter_aistack.system.processes import started_at

from .control import ANSWER_SECONDS, MPSControl, MPSServer
from .logs import Logs, control_log_size, has_server_failed, last_words
from .paths import DaemonPaths
from .protocol2 import Protocol2
from .protocol3 import Protocol3
from .records import DaemonRecord, DaemonRecords, ServerProcess

POLL_SECONDS = 0.1
POLLS = 60
"""How often a daemon is checked while it starts: six seconds in all, as a kernel that
starts waits for it; a server is ready within one or two seconds.
"""
END_SECONDS = 1.5
"""How long the end of a process is waited for, after each request and each signal."""
ABSENT_POLLS = 20
"""So often in a row a server may be missing from the list before it counts as dead: a
server with a GPU that is not there is made without complaint, and ends by itself.
"""
PID_FILE = "nvidia-cuda-mps-control.pid"

_PROTOCOLS: dict[int, type[MPSControl]] = {2: Protocol2, 3: Protocol3}


class DaemonLifecycle:
    """The process of one daemon. A caller holds `DaemonRecords.locked`: two processes
    of a user would otherwise start a daemon each, and the second would take the first
    daemon's pipes.

    Args:
        folder, records: the daemon's folder, and what is written there.
        gpu: the GPU's UUID.
        index: the GPU's number, after which the server of a new daemon is called.
        pause: how to let some seconds pass.
        answer_seconds: how long an answer may take.
    """

    def __init__(
        self,
        folder: DaemonPaths,
        records: DaemonRecords,
        gpu: str,
        index: int,
        *,
        pause: Callable[[float], object] = time.sleep,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._folder = folder
        self._records = records
        self._gpu = gpu
        self._index = index
        self._pause = pause
        self._answer_seconds = answer_seconds
        self._control: MPSControl | None = None
        self.logs = Logs(folder.logs, from_end=True)

    def control(self, protocol: int = 0) -> MPSControl:
        """How to speak to the daemon: in its own protocol, or in another."""
        running = self._records.running()
        wanted = _PROTOCOLS[protocol or (running.protocol if running else 2)]
        index = running.index if running else self._index
        if (
            self._control is None
            or type(self._control) is not wanted
            or self._control.index != index
        ):
            self._control = wanted(
                self._folder, self._gpu, index, seconds=self._answer_seconds
            )
        return self._control

    def begin(self, protocol: int) -> None:
        """Start a daemon with a server that is ready, holding all leases written down.
        Raises as `hold` does.
        """
        # A pipe directory of a dead daemon makes the new daemon refuse to start, and
        # its logs would be read as the new daemon's faults.
        left = self._left_servers()
        self._clear()
        control = self.control(protocol)
        control.start()
        pid = self._started_pid()
        # Written down before anything is asked of it: if this process dies now, the
        # next process ends the daemon instead of leaving an unknown daemon on the GPU
        # for good.
        self._records.write_running(
            DaemonRecord(
                pid=pid,
                started_at=started_at(pid),
                protocol=protocol,
                index=self._index,
                # Perhaps clients work on them still: they end with the last lease.
                servers=left,
            )
        )
        try:
            control = self._follow(control)
            limits = self._records.limits()
            # Limits are refused until the server is ready, and clients that connect
            # before they are set would run without any.
            self.open_server(control)
            # Before the leases' own limits: processes of no lease must not take the
            # memory that those have been promised.
            control.limit_orphan_memory()
            for limit in limits:
                control.hold(limit, [other for other in limits if other is not limit])
        except ProviderError:
            # A daemon that holds only some of the leases looks well, and would be given
            # the next lease.
            self.end()
            raise

    def open_server(self, control: MPSControl) -> None:
        """Have a daemon without a server start one, and wait until it is ready.

        A server that ends at once is a matter of the host (its compute mode, its
        driver, another daemon), and no fault of the lease that needs it.

        Raises:
            ProviderError: it does not become ready; the driver's words say why.
        """
        since = control_log_size(self._folder.logs)
        control.open_server(self._records.limits())
        self._await_server(control, since)

    def note_servers(self, servers: Sequence[MPSServer]) -> None:
        """Write down which processes the servers are, beside those that a daemon before
        this one left: they outlive a daemon that is killed.
        """
        running = self._records.running()
        if running is None:
            return
        known = {server.pid: server for server in running.servers if server.is_alive}
        for pid in (server.pid for server in servers if server.pid):
            known.setdefault(pid, ServerProcess(pid=pid, started_at=started_at(pid)))
        noted = tuple(known.values())
        if noted != running.servers:
            self._records.write_running(replace(running, servers=noted))

    def _left_servers(self) -> tuple[ServerProcess, ...]:
        running = self._records.running()
        known = running.servers if running is not None else ()
        return tuple(server for server in known if server.is_alive)

    def _follow(self, control: MPSControl) -> MPSControl:
        """The control in the protocol that the daemon turns out to speak."""
        try:
            control.servers()
            return control
        except ProviderError:
            other = self.control({2: 3, 3: 2}[control.protocol])
            other.servers()
            running = self._records.running()
            assert running is not None
            self._records.write_running(replace(running, protocol=other.protocol))
            return other

    def _started_pid(self) -> int:
        for _ in range(POLLS):
            with contextlib.suppress(OSError, ValueError):
                return int((self._folder.pipes / PID_FILE).read_text())
            self._pause(POLL_SECONDS)
        raise ProviderError("the MPS daemon started and does not say as which process")

    def _await_server(self, control: MPSControl, since: int) -> None:
        absent = 0
        for _ in range(POLLS):
            servers = control.servers()
            if any(server.is_ready for server in servers):
                self.note_servers(servers)
                return
            absent = 0 if servers else absent + 1
            has_failed = not servers and has_server_failed(self._folder.logs, since)
            if has_failed or absent >= ABSENT_POLLS:
                raise ProviderError(self._epitaph())
            self._pause(POLL_SECONDS)
        raise ProviderError(
            f"the MPS server did not become ready within {POLLS * POLL_SECONDS:.0f} seconds"
        )

    def _epitaph(self) -> str:
        last_line = last_words(self._folder.logs)
        why = f" ({last_line})" if last_line else ""
        return f"the MPS server of GPU {self._index} ({self._gpu}) ended as soon as it started{why}"

    def end(self) -> None:
        """End the daemon, which has no clients, and its servers: politely, else by
        their process ids.
        """
        running = self._records.running()
        if running is not None and running.is_alive:
            with contextlib.suppress(ProviderError):
                self.note_servers(self.control().servers())
            self._end_process(running, is_asked=self._ask_to_quit())
        self.end_left_servers()
        self._clear()

    def end_left_servers(self, kept: Collection[int] = ()) -> None:
        """End the servers that are left of daemons, which hold memory of the GPU; no
        client uses them.

        Args:
            kept: processes of the servers that are in use.
        """
        for server in self._left_servers():
            if server.pid not in kept:
                self._end_process(server)

    def _ask_to_quit(self) -> bool:
        """Have the daemon end itself; whether it has taken that."""
        try:
            self.control().quit()
        except ProviderError:
            return False
        return True

    def _end_process(
        self, process: DaemonRecord | ServerProcess, *, is_asked: bool = False
    ) -> None:
        """Wait for the end of a process, and help it along.

        Args:
            is_asked: it has been asked to end, and may need no signal.
        """
        with ProcessExit(process.pid, process.started_at) as ended:
            if is_asked and ended.wait(END_SECONDS):
                return
            for number in (signal.SIGTERM, signal.SIGKILL):
                ended.send(number)
                if ended.wait(END_SECONDS):
                    return

    def _clear(self) -> None:
        """Leave nothing of a daemon that has ended but its leases, and its logs for
        people.
        """
        # The record goes first: without it no process asks a daemon whose pipes are
        # gone, and would take its silence for a daemon that hangs.
        self._records.forget_running()
        shutil.rmtree(self._folder.pipes, ignore_errors=True)
        self._folder.create()
        for log in (
            *self._folder.logs.glob("*.log"),
            *self._folder.logs.glob("*/server.log"),
        ):
            log.replace(log.with_suffix(".old"))
        self.logs = Logs(self._folder.logs)
        self._control = None
