"""Sees to it that no worker computes on a slice that may belong to another holder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from jupyter_aistack.exceptions import AIStackError

from .worker import LeasedWorker
from .worker_leases import WorkerLeases

LEASE_CHECK_SECONDS = 2.0
"""How often it is checked that the workers' leases are still theirs."""


class LeaseWatch:
    """Looks, in a task, whether the leases of workers have ended, by their time or by
    another's act.

    Args:
        leases: where they come from.
        workers: the workers there are.
        on_lost: called with a worker whose lease has ended.
    """

    def __init__(
        self,
        leases: WorkerLeases,
        workers: Callable[[], Iterable[LeasedWorker]],
        on_lost: Callable[[LeasedWorker, str], Awaitable[None]],
    ) -> None:
        self._leases = leases
        self._workers = workers
        self._on_lost = on_lost
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; doing so twice is allowed."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LEASE_CHECK_SECONDS)
            workers = {
                worker.lease.id: worker
                for worker in self._workers()
                if worker.lease is not None and worker.is_computing
            }
            if not workers:
                continue
            try:
                live = await self._leases.live_ids()
            except AIStackError:
                # Not knowing is no reason to end work; the next check may know.
                continue
            except RuntimeError:
                # The interpreter ends and starts no more threads; so does the cluster.
                return
            for lease_id in workers.keys() - live:
                await self._on_lost(workers[lease_id], lease_id)
