"""The nanny of a worker on a slice: starts its process with the slice's environment, and
binds it to the lease.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from distributed import Nanny, Status

from jupyter_aistack.client.client import LeaseHandle
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.completion import in_thread

from .worker_leases import WorkerLeases
from .worker_spec import withheld


class SliceNanny(Nanny):
    """A nanny that charges each worker process it starts, also after a restart, to the
    lease, and starts none on a lease that has ended.
    """

    def __init__(
        self, *args: Any, lease: LeaseHandle, leases: WorkerLeases, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.lease = lease
        self.leases = leases
        self.env = {**withheld(os.environ, lease.prepared.environment), **self.env}
        # Thread counts are read when numpy loads, which may be before the rest of the
        # environment is there.
        for name, value in self.env.items():
            if name.endswith("_NUM_THREADS"):
                self.pre_spawn_env[name] = value

    async def instantiate(self) -> Status:
        """Start a worker process; none again where its lease has ended meanwhile."""
        is_restart = self.process is not None
        if is_restart and await self._has_lost_lease():
            return Status.failed
        # From here to the process there is no pause in which it could be closed.
        if is_restart and self.status is not Status.running:
            return Status.failed
        with _restored.after(self.pre_spawn_env):
            status = await super().instantiate()
        if self.pid:
            # Only what is shown as its use depends on it.
            with contextlib.suppress(AIStackError):
                await in_thread(functools.partial(self.lease.bind, self.pid))
        return status

    async def _has_lost_lease(self) -> bool:
        """Whether the lease is known to have ended: not knowing is no reason to end
        work.
        """
        try:
            return self.lease.id not in await self.leases.live_ids()
        except AIStackError:
            return False


class _RestoredEnvironment:
    """Restores this process's environment: Dask fills it with what a worker must find
    at its start, and leaves it so.

    A notebook's own thread counts must not become its workers', so they are restored
    when the last start is through.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before: dict[str, str | None] = {}
        self._starts = 0

    @contextlib.contextmanager
    def after(self, names: Iterable[str]) -> Iterator[None]:
        """Restore `names` after the block, or after the last of several blocks that
        overlap.
        """
        with self._lock:
            self._starts += 1
            for name in names:
                self._before.setdefault(name, os.environ.get(name))
        try:
            yield
        finally:
            with self._lock:
                self._starts -= 1
                if not self._starts:
                    self._restore()

    def _restore(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()


_restored = _RestoredEnvironment()
