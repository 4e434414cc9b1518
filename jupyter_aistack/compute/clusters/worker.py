"""One Dask worker and the lease it runs on, as a unit that starts and ends
together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from distributed import Status, rpc
from distributed.deploy.spec import ProcessInterface
from distributed.protocol.pickle import dumps

from jupyter_aistack.client.client import LeaseHandle
from jupyter_aistack.core.enforcement.verification import (
    Verdict,
    check_enforcement,
    not_verified,
)
from jupyter_aistack.exceptions import AIStackError, ClusterError
from jupyter_aistack.system.completion import completed, in_thread
from jupyter_aistack.system.process_tree import (
    killed,
    send_kill,
    with_descendants,
)
from jupyter_aistack.system.verify.child import listed

from .failures import reasons
from .nanny import SliceNanny
from .worker_leases import WorkerLeases
from .worker_plugins import close_probe, start_probe
from .worker_spec import check_nanny, nanny_options

log = logging.getLogger("jupyter_aistack")

KILL_PAUSE_SECONDS = 0.05
"""Between two looks at whether a worker that was given up has a process by now."""


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
        self.nanny: SliceNanny | None = None
        self.stage = "not started"
        self._given_up = asyncio.Event()
        self._beginning: asyncio.Task[None] | None = None

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
            asyncio.CancelledError: the caller was cancelled; nothing is held.
        """
        self._beginning = asyncio.create_task(self._begin())
        await completed(self._beginning, on_cancel=self.give_up)
        await super().start()

    def give_up(self) -> None:
        """End it soon: a start is broken off and leaves nothing, a worker that is being
        closed is not waited for.
        """
        self._given_up.set()

    async def close(self) -> None:
        """End the worker, then give its slice back."""
        if self.status is Status.closing:
            await self.finished()
        if self.status is Status.closed:
            return
        if self._beginning is not None and not self._beginning.done():
            self.give_up()
            await asyncio.wait({self._beginning})
        self.status = Status.closing
        self._set_stage("closing")
        try:
            await self._stop()
        finally:
            self._set_stage("closed")
            await super().close()

    async def _begin(self) -> None:
        try:
            await self._acquire_and_launch()
        except BaseException as error:
            await self._stop()
            self.status = Status.failed
            self._set_stage("failed")
            if isinstance(error, AIStackError) or not isinstance(error, Exception):
                raise  # Ctrl-C and a cancellation stay what they are
            self._check_wanted()
            raise ClusterError(
                f"worker {self.name} did not start: {reasons(error)}"
            ) from error
        self._set_stage("ready")

    async def _acquire_and_launch(self) -> None:
        self._check_wanted()
        lease = await self.plan.leases.request(self.name, self._keep)
        await self.plan.leases.await_grant(
            lease,
            pause=self._pause,
            on_wait=lambda reason: self._set_stage(f"waits: {reason}"),
        )
        self._check_wanted()
        self._set_stage("starting")
        await self._launch(lease)
        self._set_stage("being checked")
        verification = asyncio.ensure_future(self._verify(lease))
        await self._until_given_up(verification)
        if not verification.done():
            verification.cancel()
            await asyncio.wait({verification})
        self._check_wanted()
        verification.result()

    def _keep(self, lease: LeaseHandle) -> None:
        """Take a request before it is granted: a wait that is broken off must leave the
        queue.
        """
        self.lease = lease

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._given_up.wait(), seconds)
        self._check_wanted()

    def _check_wanted(self) -> None:
        if self._given_up.is_set() or not self.plan.is_wanted(self.name):
            raise ClusterError(f"worker {self.name} is no longer wanted")

    async def _stop(self) -> None:
        """End the process and all it has started, then release the lease: its slice
        must be free by then.
        """
        has_ended = self.nanny is None or await self._end_process(self.nanny)
        if self.lease is not None and has_ended:
            # The broker reclaims what could not be released.
            with contextlib.suppress(AIStackError):
                await self.plan.leases.release(self.lease)

    async def _end_process(self, nanny: SliceNanny) -> bool:
        """Close a nanny; whether nothing of its worker runs any more."""
        pid = nanny.pid
        tree = [] if pid is None else await in_thread(lambda: with_descendants(pid))
        try:
            await self._see_through(nanny.close())
        except Exception:
            # Dask closes what has come up; what has not, or hangs, is killed below.
            log.debug("worker %s: its nanny did not close", self.name, exc_info=True)
        left = await in_thread(lambda: killed(tree))
        if left:
            log.warning(
                "worker %s: process %s does not end, so its slice is kept",
                self.name,
                left[0].pid,
            )
        return not left

    async def _see_through(self, step: Awaitable[object]) -> None:
        """Await a nanny's start or end. Once this worker is given up its process is
        killed, so that the step comes to its end; a nanny that is up would start
        another.
        """
        task = asyncio.ensure_future(step)
        await self._until_given_up(task)
        while not task.done():
            if self.pid is not None:
                send_kill(with_descendants(self.pid))
            await asyncio.wait({task}, timeout=KILL_PAUSE_SECONDS)
        await task

    async def _until_given_up(self, task: asyncio.Future[Any]) -> None:
        """Wait until a task is done, or this worker is given up."""
        given_up = asyncio.ensure_future(self._given_up.wait())
        try:
            await asyncio.wait({task, given_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            given_up.cancel()

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
        own = {
            "name": self.name,
            "security": self.security,
            "lease": lease,
            "leases": self.plan.leases,
            "dashboard_address": None,
            "silence_logs": logging.WARNING,
        }
        self.nanny = SliceNanny(self.scheduler, **{**own, **options, **self.plan.nanny})
        await self._see_through(self.nanny.start())
        self.address = self.nanny.worker_address

    async def _verify(self, lease: LeaseHandle) -> None:
        verified, condition = await self._check_from_inside(lease)
        await in_thread(lambda: lease.activate(verified=verified, condition=condition))

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
