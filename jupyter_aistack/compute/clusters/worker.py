"""One Dask worker and the lease it runs on, as a unit that starts and ends
together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed import Nanny, Status, rpc
from distributed.deploy.spec import ProcessInterface
from distributed.protocol.pickle import dumps

from jupyter_aistack.client.client import LeaseHandle
from jupyter_aistack.core.enforcement.verification import (
    Verdict,
    check_enforcement,
    not_verified,
)
from jupyter_aistack.exceptions import AIStackError, ClusterError
from jupyter_aistack.system.verify.child import listed

from .nanny import SliceNanny
from .worker_leases import WorkerLeases
from .worker_plugins import close_probe, start_probe
from .worker_spec import check_nanny, nanny_options


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """What the workers of one cluster have in common.

    Attributes:
        leases: where their slices come from.
        threads: tasks at once; None for what suits the slice.
        nanny: further arguments of ``distributed.Nanny``.
        is_wanted: whether the cluster still wants the worker of that name.
        on_change: called when a worker's `stage` changes.
    """

    leases: WorkerLeases
    threads: int | None
    nanny: dict[str, Any]
    is_wanted: Callable[[object], bool]
    on_change: Callable[[], None]


class LeasedWorker(ProcessInterface):
    """Acquires a lease, then starts a nanny and its worker on it; closing gives the
    lease back.

    Attributes:
        lease: the lease, or the place in the queue; None before it was asked for.
        stage: what it is doing, for people.
    """

    def __init__(
        self, scheduler: str, name: object, *, plan: WorkerPlan, security: Any = None
    ) -> None:
        super().__init__(scheduler=scheduler, name=name)
        self.scheduler = scheduler
        self.name = name
        self.plan = plan
        self.security = security
        self.lease: LeaseHandle | None = None
        self.nanny: Nanny | None = None
        self.stage = "not started"

    @property
    def pid(self) -> int | None:
        """The worker's process, not the nanny's."""
        return self.nanny.pid if self.nanny else None

    @property
    def is_computing(self) -> bool:
        """Whether it is up and has not begun to close."""
        return self.stage == "ready" and self.status is Status.running

    async def start(self) -> None:
        """Wait for the lease, start on it, verify it from inside.

        Raises:
            AcquireTimeout: no slice came free; nothing is held.
            AIStackError: the slice cannot be had at all, or the worker did not start;
                nothing is held.
        """
        try:
            # Kept before it is granted: a wait that is broken off must leave the queue.
            self.lease = await self.plan.leases.request(self.name)
            await self.plan.leases.await_grant(
                self.name,
                self.lease,
                is_wanted=self.plan.is_wanted,
                on_wait=lambda reason: self._set_stage(f"waits: {reason}"),
            )
            self._set_stage("starting")
            await self._launch(self.lease)
            await self._verify(self.lease)
        except BaseException as error:
            await asyncio.shield(self._fail())
            if isinstance(error, (AIStackError, asyncio.CancelledError)):
                raise
            raise ClusterError(f"worker {self.name} did not start: {error}") from error
        self._set_stage("ready")
        await super().start()

    async def close(self) -> None:
        """End the worker, then give its slice back."""
        if self.status in (Status.closing, Status.closed):
            return
        self.status = Status.closing
        self._set_stage("closing")
        await self._stop()
        self._set_stage("closed")
        await super().close()

    async def _fail(self) -> None:
        await self._stop()
        self.status = Status.failed
        self._set_stage("failed")

    async def _stop(self) -> None:
        """End the process, then release the lease: its slice must be free by then."""
        try:
            if self.nanny is not None:
                await self.nanny.close()
        finally:
            if self.lease is not None:
                # The broker reclaims what could not be released.
                with contextlib.suppress(AIStackError):
                    await self.plan.leases.release(self.lease)

    def _set_stage(self, stage: str) -> None:
        if stage != self.stage:
            self.stage = stage
            self.plan.on_change()

    # -- the process -------------------------------------------------------------------

    async def _launch(self, lease: LeaseHandle) -> None:
        check_nanny(lease.slices, lease.prepared, self.plan.nanny)
        options = nanny_options(
            lease.slices,
            lease.prepared,
            host_memory_bytes=await self.plan.leases.host_memory_bytes(lease),
            threads=self.plan.threads,
        )
        self.nanny = SliceNanny(
            self.scheduler,
            name=self.name,
            security=self.security,
            lease=lease,
            dashboard_address=None,
            silence_logs=logging.WARNING,
            **{**options, **self.plan.nanny},
        )
        await self.nanny
        self.address = self.nanny.worker_address

    async def _verify(self, lease: LeaseHandle) -> None:
        verified, condition = await self._check_from_inside(lease)
        await asyncio.to_thread(lease.activate, verified=verified, condition=condition)

    async def _check_from_inside(self, lease: LeaseHandle) -> Verdict:
        """Have a child of the worker report what it sees, and compare that with what
        was granted.
        """
        assert self.nanny is not None
        expects = lease.prepared.expects
        if expects.is_empty:
            return check_enforcement(expects, {}, time.time())
        address = self.nanny.worker_address
        async with rpc(address, connection_args=self.nanny.connection_args) as worker:
            reply = await worker.run(function=dumps(start_probe))
            if reply["status"] != "OK":
                return not_verified("the worker did not answer", time.time())
            seen = reply["result"]
            if isinstance(seen, str):
                return not_verified(seen, time.time())
            try:
                # The server is asked while the child still holds the device: it knows a
                # process only as long as that is its client.
                mps = await asyncio.to_thread(listed, expects, seen, lease.is_client)
                return check_enforcement(expects, {**seen, "mps": mps}, time.time())
            finally:
                await worker.run(
                    function=dumps(close_probe), args=dumps((seen["pid"],))
                )
