"""All MPS daemons of this user, as far as one broker has to do with them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jupyter_aistack.core.model.device import Fault
from jupyter_aistack.exceptions import PrepareFailed, ProviderError

from .control import ANSWER_SECONDS, MPSLimit
from .daemon import Daemon
from .paths import DaemonPaths, runtime_root, short
from .records import DaemonRecords
from .users import user_suffix

log = logging.getLogger("jupyter_aistack")

CHECK_SECONDS = 5.0
OLDEST_PROTOCOL = 2
RETRY_SECONDS = 60.0
"""How long a GPU on which no daemon could be started is left alone."""
MOST_LEFT = 256
"""Leases that are remembered after their end."""


@dataclass(frozen=True, kw_only=True)
class MPSAssignment:
    """What holds a lease.

    Attributes:
        directory: what ``CUDA_MPS_PIPE_DIRECTORY`` must be.
        protocol: the protocol of the daemon, 2 or 3.
        limit: what the lease's clients may use.
        reason: why the protocol is older than the one that was asked for; empty where
            it is not, or an older daemon runs.
    """

    directory: Path
    protocol: int
    limit: MPSLimit
    reason: str = ""


class MPSManager:
    """Holds leases to their shares by MPS daemons: one for each GPU, or one for each
    lease.

    A thread of its own looks at the daemons while there are any.

    Args:
        root: gives the folder for all daemons, or raises `ProviderError`.
        strict: in protocol 2, a daemon for each lease, which has the lease's limits at
            the server: there is no other way to hold a client that drops its
            environment. The GPU then takes turns between the servers.
        interval: seconds between two looks at the daemons; None for none but by
            `check`.
        clock: seconds that only go forward.
        pause: how to let some seconds pass while a daemon starts or ends.
        answer_seconds: how long a daemon may take to answer.
    """

    def __init__(
        self,
        *,
        root: Callable[[], Path] = runtime_root,
        strict: bool = False,
        interval: float | None = CHECK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._find_root = root
        self._strict = strict
        self._interval = interval
        self._clock = clock
        self._pause = pause
        self._answer_seconds = answer_seconds
        self._root: Path | None = None
        self._lock = threading.Lock()
        self._daemons: dict[Path, Daemon] = {}
        self._held: dict[str, tuple[Daemon, MPSAssignment]] = {}
        # The last leases to end: what ran for them may be connected still.
        self._left: dict[str, Daemon] = {}
        self._failures: dict[tuple[str, int], tuple[str, float]] = {}
        self._starting: dict[str, threading.Lock] = {}
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def root(self) -> Path:
        """The folder for all daemons, made or not. Raises `ProviderError`: there is no
        place for it.
        """
        if self._root is None or not self._root.parent.is_dir():
            self._root = self._find_root()
        return self._root

    # -- holding -----------------------------------------------------------------------

    def prepare(
        self,
        lease_id: str,
        gpu: str,
        index: int,
        *,
        percent: int,
        mib: int,
        protocol: int,
        slots: int,
        uid: int | None = None,
    ) -> MPSAssignment:
        """Hold a lease to `percent` of the multiprocessors and `mib` of memory of a
        GPU. The second time is quick, unless these have changed.

        Args:
            gpu, index: the GPU's UUID, and its number on the host.
            protocol: what a new daemon is to speak; a daemon that runs is taken as it
                is.
            slots: how many clients the GPU takes.
            uid: whose processes alone may reach the lease's pipes; see `MPSLimit`.

        Raises:
            PrepareFailed: this lease cannot be held: no slot is left, or the GPU is
                closed after a fault.
            ProviderError: MPS cannot be had on this GPU; `failure` says so for a while.
        """
        known = self._held.get(lease_id)
        name = _lease_name(lease_id)
        limit = MPSLimit(name=name, percent=percent, mib=mib, uid=uid)
        if known is not None and _is_held(*known, limit):
            return known[1]
        with self._starting_of(gpu):
            daemon, held = self._hold(lease_id, gpu, index, limit, protocol, slots)
        self._held[lease_id] = (daemon, held)
        self._watch()
        return held

    def _starting_of(self, gpu: str) -> threading.Lock:
        """Of many leases that need a daemon at once the first alone waits for one that
        does not come up.
        """
        with self._lock:
            return self._starting.setdefault(gpu, threading.Lock())

    def _hold(
        self,
        lease_id: str,
        gpu: str,
        index: int,
        limit: MPSLimit,
        protocol: int,
        slots: int,
    ) -> tuple[Daemon, MPSAssignment]:
        """Hold a lease in the newest protocol in which a daemon comes up. Raises as
        `prepare`.
        """
        reason = ""
        for version in range(protocol, OLDEST_PROTOCOL - 1, -1):
            reason = self.failure(gpu, version)
            if reason:
                continue
            daemon = self._daemon(gpu, index, self._folder(gpu, limit, version))
            try:
                directory = daemon.hold(limit, protocol=version, slots=slots)
            except PrepareFailed:
                raise
            except (ProviderError, OSError) as error:
                reason = str(error)
                self._failures[gpu, version] = (reason, self._clock())
                if daemon.protocol:  # others hold leases by it; no second is started
                    break
                continue
            return daemon, MPSAssignment(
                directory=directory,
                protocol=daemon.protocol,
                limit=limit,
                reason=self.failure(gpu, protocol),
            )
        raise ProviderError(reason)

    def unprepare(self, lease_id: str, gpu: str, index: int) -> None:
        """Hold a lease no longer, whichever process began it. Raises nothing."""
        known = self._held.pop(lease_id, None)
        daemon = (
            known[0] if known is not None else self._daemon_of(lease_id, gpu, index)
        )
        if daemon is None:
            return
        if daemon.is_lost:
            self._abandon(daemon)
            return
        self._remember(lease_id, daemon)
        try:
            daemon.drop(_lease_name(lease_id))
        except (ProviderError, OSError) as error:
            log.warning("MPS did not let go of lease %s: %s", lease_id, error)

    def holds(self, lease_id: str, gpu: str, index: int) -> bool:
        """Whether a daemon of this user holds a lease, or held it and runs still."""
        return self._daemon_of(lease_id, gpu, index) is not None

    def clients(self, lease_id: str, gpu: str, index: int) -> frozenset[int] | None:
        """Processes connected for a lease; in protocol 2 those of all leases of the
        daemon.

        Of a lease that has ended too: who goes on using its GPU is a client until the
        process ends. None where no daemon holds or held it, or it does not answer.
        """
        daemon = self._daemon_of(lease_id, gpu, index)
        if daemon is None:
            return None
        try:
            return daemon.clients(_lease_name(lease_id))
        except (ProviderError, OSError) as error:
            log.warning(
                "MPS does not tell the clients of lease %s: %s", lease_id, error
            )
            return None

    def terminate(self, lease_id: str, gpu: str, index: int, pid: int) -> None:
        """End the work of one client. Raises `ProviderError`."""
        daemon = self._daemon_of(lease_id, gpu, index)
        if daemon is None:
            raise ProviderError(f"lease {lease_id} is held by no MPS server")
        try:
            daemon.terminate(pid)
        except OSError as error:
            raise ProviderError(
                f"the MPS server of lease {lease_id} cannot be asked: {error}"
            ) from error

    # -- telling -----------------------------------------------------------------------

    def problem(self, gpu: str, index: int) -> str:
        """Why a GPU is closed, in words that follow its name; empty when it is open."""
        closed = [daemon.trouble for daemon in self._needy(gpu, index)]
        shut = (each for each in closed if each is not None and each.is_closed)
        return next((each.message for each in shut), "")

    def faults(self) -> tuple[Fault, ...]:
        """What is wrong and not over."""
        with self._lock:
            daemons = tuple(self._daemons.values())
        troubled = ((daemon, daemon.trouble) for daemon in daemons)
        return tuple(
            Fault(
                device_id=daemon.gpu,
                pid=trouble.pid,
                message=f"GPU {daemon.index} {trouble.message}",
            )
            for daemon, trouble in troubled
            if trouble is not None
        )

    def failure(self, gpu: str, protocol: int = OLDEST_PROTOCOL) -> str:
        """Why no daemon that speaks a protocol could be started on a GPU a moment ago;
        empty when it was, or when it may be tried again.
        """
        message, at = self._failures.get((gpu, protocol), ("", 0.0))
        return message if message and self._clock() - at < RETRY_SECONDS else ""

    def own_pids(self) -> frozenset[int]:
        """The daemons of this user, and their servers."""
        records = [DaemonRecords(folder).running() for folder in self._folders()]
        daemons = [record for record in records if record is not None]
        servers = [server for record in daemons for server in record.servers]
        alive = [server.pid for server in servers if server.is_alive]
        return frozenset((*alive, *(daemon.pid for daemon in daemons)))

    def check(self) -> None:
        """Look at every daemon, and see to those that need it."""
        with self._lock:
            daemons = tuple(self._daemons.values())
        for daemon in daemons:
            daemon.check()

    def close(self) -> None:
        """Watch no longer. Daemons that hold leases go on: others look after them, or
        their leases' end does.
        """
        self._is_closed.set()
        thread = self._thread
        self._thread = None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=CHECK_SECONDS)

    # -- within ------------------------------------------------------------------------

    def _watch(self) -> None:
        with self._lock:
            if self._interval is None or (
                self._thread is not None and self._thread.is_alive()
            ):
                return
            self._is_closed.clear()
            self._thread = threading.Thread(
                target=self._keep_checking, name="aistack-mps", daemon=True
            )
            self._thread.start()

    def _keep_checking(self) -> None:
        while not self._is_closed.wait(self._interval):
            try:
                self.check()
            except Exception:
                # A later check may succeed; without checks no fault would be reported.
                log.warning("an MPS daemon could not be looked at", exc_info=True)

    def _daemon(self, gpu: str, index: int, folder: DaemonPaths) -> Daemon:
        with self._lock:
            if folder.path not in self._daemons:
                self._daemons[folder.path] = Daemon(
                    folder,
                    gpu,
                    index,
                    pause=self._pause,
                    answer_seconds=self._answer_seconds,
                )
            return self._daemons[folder.path]

    def _abandon(self, daemon: Daemon) -> None:
        if all(held[0] is not daemon for held in self._held.values()):
            daemon.abandon()
            with self._lock:
                self._daemons.pop(daemon.folder.path, None)

    def _remember(self, lease_id: str, daemon: Daemon) -> None:
        """Know whom to ask about a lease that ends."""
        self._left[lease_id] = daemon
        for oldest in tuple(self._left)[:-MOST_LEFT]:
            self._left.pop(oldest, None)

    def _daemon_of(self, lease_id: str, gpu: str, index: int) -> Daemon | None:
        """The daemon that has a lease written down, or had it and runs still."""
        for folder in self._folders(gpu):
            if (folder.leases / f"{_lease_name(lease_id)}.json").exists():
                return self._daemon(gpu, index, folder)
        left = self._left.get(lease_id)
        return left if left is not None and left.protocol else None

    def _needy(self, gpu: str, index: int) -> list[Daemon]:
        """The daemons of a GPU with which something is wrong, or that no process looks
        after; from now on this process does.
        """
        folders = [
            folder for folder in self._folders(gpu) if _is_needy(DaemonRecords(folder))
        ]
        daemons = [self._daemon(gpu, index, folder) for folder in folders]
        if daemons:
            self._watch()
        with self._lock:
            return [
                *daemons,
                *(
                    daemon
                    for daemon in self._daemons.values()
                    if daemon.gpu == gpu and daemon.is_lost
                ),
            ]

    def _folder(self, gpu: str, limit: MPSLimit, protocol: int) -> DaemonPaths:
        is_strict = self._strict and protocol == 2
        user = user_suffix(limit.uid) if protocol == 2 else ""
        own = f"-{limit.name[1:9]}" if is_strict else ""
        return DaemonPaths(self.root() / f"{short(gpu)}{user}{own}")

    def _folders(self, gpu: str = "") -> list[DaemonPaths]:
        """The folders of a GPU's daemons, or of all."""
        try:
            paths = self.root().glob(f"{short(gpu)}*" if gpu else "*")
        except ProviderError:
            return []
        return [DaemonPaths(path) for path in sorted(paths) if path.is_dir()]


def _is_needy(records: DaemonRecords) -> bool:
    """Whether something is wrong with a daemon, or it was left behind by servers that
    crashed.
    """
    if records.trouble() is not None:
        return True
    return records.running() is not None and all(
        entry.is_orphan for entry in records.entries().values()
    )


def _is_held(daemon: Daemon, held: MPSAssignment, limit: MPSLimit) -> bool:
    """Whether a lease has a limit already, at a daemon that is well."""
    is_there = (held.directory / "control").exists()
    return held.limit == limit and is_there and daemon.is_well


def _lease_name(lease_id: str) -> str:
    return f"l{short(lease_id)}"
