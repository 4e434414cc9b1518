"""Access by device files: a process with a lease can open the devices of its leases and
no others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.system.device_scopes import DeviceScopes
from jupyter_aistack.system.processes import started_at

from .liveness import root_pid

Files = Callable[[Lease], Sequence[str] | None]
"""The device files that a lease needs; None where that is not known."""


class DeviceAccess:
    """Keeps processes to the devices of their leases.

    Args:
        scopes: hold processes to device files.
        leases: gives the live leases of the host.
        files: gives the device files of a lease.

    Attributes:
        problems: what could not be confined, by lease id, one sentence each.
    """

    def __init__(
        self, scopes: DeviceScopes, leases: Callable[[], Iterable[Lease]], files: Files
    ) -> None:
        self._scopes = scopes
        self._leases = leases
        self._files = files
        # What one thread has read of a process's leases must be what systemd is told
        # last.
        self._lock = threading.Lock()
        self.problems: dict[str, str] = {}

    def enter(self, lease: Lease, pid: int) -> None:
        """A process is tied to a lease: it can open that lease's devices too, and those
        of its other leases. What fails is a problem of the host, and not of the lease.
        """
        with self._lock:
            self._confine(lease, pid, [*self._others(lease, pid), lease])

    def leave(self, lease: Lease) -> None:
        """A lease has ended: its process can open the devices of its other leases."""
        self.problems.pop(lease.id, None)
        pid = root_pid(lease.holder)
        if pid is None or started_at(pid) is None:
            return
        with self._lock:
            self._confine(lease, pid, self._others(lease, pid))
        self.problems.pop(lease.id, None)

    def _others(self, lease: Lease, pid: int) -> list[Lease]:
        """The other leases of a process."""
        leases = [each for each in self._leases() if root_pid(each.holder) == pid]
        return [each for each in leases if each.id != lease.id]

    def _confine(self, lease: Lease, pid: int, leases: Sequence[Lease]) -> None:
        self.problems.pop(lease.id, None)
        files: list[str] = []
        for each in leases:
            own = self._files(each)
            if own is None:
                self._fail(lease, pid, "which files its devices have is not known")
                return
            files += own
        try:
            self._scopes.confine(pid, sorted(set(files)))
        except ProviderError as error:
            self._fail(lease, pid, error.message)

    def _fail(self, lease: Lease, pid: int, why: str) -> None:
        self.problems[lease.id] = (
            f"process {pid} of lease {lease.id} can open other devices than its own: {why}"
        )
