"""One Dask worker and the lease it runs on, as one thing that starts and ends
together.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from distributed import Nanny, Status, rpc
from distributed.deploy.spec import ProcessInterface
from distributed.protocol.pickle import dumps

from jupyter_aistack.client.client import Client, LeaseHandle
from jupyter_aistack.core.enforcement.verification import (
    Verdict,
    check_enforcement,
    not_verified,
)
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.exceptions import AcquireTimeout, AIStackError, ClusterError
from jupyter_aistack.system.verify.child import listed

from .worker_plugins import look, look_no_more
from .worker_spec import check_nanny, nanny_options, withheld

FIRST_POLL_SECONDS = 0.1
LAST_POLL_SECONDS = 1.0
HOPELESS_SECONDS = 1.0
"""How long nothing but this notebook's own leases must stand in the way before waiting
is given up.
"""


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """What the workers of one cluster have in common.

    Attributes:
        client: to ask for leases.
        spec: the slice each worker gets.
        queue: where to ask for it.
        timeout: seconds to wait for it; None for as long as somebody else stands in the
            way.
        threads: tasks at once; None for what suits the slice.
        nanny: further arguments of ``distributed.Nanny``.
        holder_id: what the holder of a worker's lease is called.
        is_wanted: whether the cluster still wants the worker of that name.
        on_change: called when a worker's `stage` changes.
    """

    client: Client
    spec: str
    queue: str
    timeout: float | None
    threads: int | None
    nanny: dict[str, Any]
    holder_id: Callable[[object], str]
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

    async def start(self) -> None:
        """Wait for the lease, start on it, look whether it holds.

        Raises:
            AcquireTimeout: no slice came free; nothing is held.
            AIStackError: the slice cannot be had at all, or the worker did not start;
                nothing is held.
        """
        try:
            self.lease = await self._acquire()
            self._tell("starting")
            await self._launch(self.lease)
            await self._verify(self.lease)
        except BaseException as error:
            await asyncio.shield(self._give_up())
            if isinstance(error, (AIStackError, asyncio.CancelledError)):
                raise
            raise ClusterError(f"worker {self.name} did not start: {error}") from error
        self._tell("ready")
        await super().start()

    async def close(self) -> None:
        """End the worker, then give its slice back."""
        if self.status in (Status.closing, Status.closed):
            return
        self.status = Status.closing
        self._tell("closing")
        await self._let_go()
        self._tell("closed")
        await super().close()

    async def _give_up(self) -> None:
        await self._let_go()
        self.status = Status.failed
        self._tell("failed")

    async def _let_go(self) -> None:
        try:
            if self.nanny is not None:
                await self.nanny.close()
        finally:
            if self.lease is not None:
                with contextlib.suppress(
                    AIStackError
                ):  # the reaper ends what could not be given back
                    await _give_back(self.lease)

    def _tell(self, stage: str) -> None:
        if stage != self.stage:
            self.stage = stage
            self.plan.on_change()

    # -- the lease ---------------------------------------------------------------------

    async def _acquire(self) -> LeaseHandle:
        plan = self.plan
        # Kept at once: a wait that is broken off must leave the queue.
        self.lease = held = await asyncio.to_thread(
            plan.client.request,
            plan.spec,
            wait=False,
            queue=plan.queue,
            label=f"Dask worker {self.name}",
            holder={"kind": "worker", "id": plan.holder_id(self.name)},
            attach=False,
        )
        asked_at = time.monotonic()
        pause = FIRST_POLL_SECONDS
        hopeless_since = None
        while not held.is_granted:
            self._tell(f"waits: {held.reason}")
            await asyncio.sleep(pause)
            pause = min(LAST_POLL_SECONDS, pause * 1.5)
            hopeless_since = (
                (hopeless_since or time.monotonic())
                if await self._is_hopeless()
                else None
            )
            self._check_patience(held, asked_at, hopeless_since)
            await asyncio.to_thread(held.refresh)
        return held

    def _check_patience(
        self, held: LeaseHandle, asked_at: float, hopeless_since: float | None
    ) -> None:
        now = time.monotonic()
        if not self.plan.is_wanted(self.name):
            raise ClusterError(f"worker {self.name} is no longer wanted")
        if held.request["state"] != RequestState.QUEUED.value:
            raise ClusterError(
                f"the request for {held.spec} was {held.state}: {held.reason}"
            )
        if self.plan.timeout is not None and now - asked_at >= self.plan.timeout:
            raise AcquireTimeout(held.reason)
        if (
            self.plan.timeout is None
            and hopeless_since is not None
            and now - hopeless_since >= HOPELESS_SECONDS
        ):
            raise AcquireTimeout(
                f"{held.reason}, and everything leased on this host is held by this notebook itself"
            )

    async def _is_hopeless(self) -> bool:
        """Whether only leases of this notebook stand in the way, so that waiting would
        be for ourselves.
        """
        all_leases = await asyncio.to_thread(self.plan.client.leases)
        mine = await asyncio.to_thread(self.plan.client.mine)
        own = {lease["id"] for lease in mine["leases"]}
        return bool(own) and {lease["id"] for lease in all_leases} <= own

    # -- the process -------------------------------------------------------------------

    async def _launch(self, lease: LeaseHandle) -> None:
        check_nanny(lease.slices, lease.prepared, self.plan.nanny)
        host_bytes = await asyncio.to_thread(host_memory_bytes, self.plan.client, lease)
        options = nanny_options(
            lease.slices,
            lease.prepared,
            host_memory_bytes=host_bytes,
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
        verified, condition = await self._look(lease)
        await asyncio.to_thread(lease.activate, verified=verified, condition=condition)

    async def _look(self, lease: LeaseHandle) -> Verdict:
        assert self.nanny is not None
        expects = lease.prepared.expects
        if expects.is_empty:
            return check_enforcement(expects, {}, time.time())
        async with rpc(
            self.nanny.worker_address, connection_args=self.nanny.connection_args
        ) as worker:
            answer = await worker.run(function=dumps(look))
            seen = (
                answer["result"]
                if answer["status"] == "OK"
                else "the worker did not answer"
            )
            if isinstance(seen, str):
                return not_verified(seen, time.time())
            try:
                mps = await asyncio.to_thread(listed, expects, seen, lease.is_client)
                return check_enforcement(expects, {**seen, "mps": mps}, time.time())
            finally:
                await worker.run(
                    function=dumps(look_no_more), args=dumps((seen["pid"],))
                )


class _LentEnvironment:
    """This process's environment, which Dask fills with what a worker must find at its
    birth, and leaves so.

    A notebook's own thread counts must not become its workers', so they are put back
    when the last start is through.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before: dict[str, str | None] = {}
        self._borrowers = 0

    @contextlib.contextmanager
    def of(self, names: Iterable[str]) -> Iterator[None]:
        """Put `names` back after the block, or after the last of several blocks that
        overlap.
        """
        with self._lock:
            self._borrowers += 1
            for name in names:
                self._before.setdefault(name, os.environ.get(name))
        try:
            yield
        finally:
            with self._lock:
                self._borrowers -= 1
                if not self._borrowers:
                    self._put_back()

    def _put_back(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()


_LENT = _LentEnvironment()


class SliceNanny(Nanny):
    """A nanny that charges each worker process it starts, also after a restart, to the
    lease.
    """

    def __init__(self, *args: Any, lease: LeaseHandle, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lease = lease
        self.env = {**withheld(os.environ, lease.prepared.environment), **self.env}
        # Thread counts are read when numpy loads, which may be before the rest of the
        # environment is there.
        self.pre_spawn_env.update(
            {k: v for k, v in self.env.items() if k.endswith("_NUM_THREADS")}
        )

    async def instantiate(self) -> Status:
        """Start a worker process."""
        with _LENT.of(self.pre_spawn_env):
            status = await super().instantiate()
        if self.pid:
            with contextlib.suppress(
                AIStackError
            ):  # only what is shown as its use depends on it
                await asyncio.to_thread(self.lease.bind, self.pid)
        return status


async def _give_back(lease: LeaseHandle) -> None:
    """Release off the loop; at the interpreter's exit, when no thread may be started
    any more, on it.
    """
    giving = functools.partial(_release, lease)
    try:
        done = asyncio.get_running_loop().run_in_executor(None, giving)
    except RuntimeError:
        giving()
    else:
        await done


def _release(held: LeaseHandle) -> None:
    held.release()
    if (
        not held.is_granted and held.request["state"] == RequestState.GRANTED.value
    ):  # granted while leaving the queue
        held.refresh().release()


def host_memory_bytes(client: Client, lease: LeaseHandle) -> int:
    """Host memory that goes with a lease: the same share of the host's as it has of all
    devices of its kind.
    """
    import psutil

    kinds = {device["id"]: device["kind"] for device in client.host()["devices"]}
    peers = [kinds.get(piece.device_id) for piece in lease.slices[:1]]
    count = sum(kind in peers for kind in kinds.values())
    share = sum(piece.fraction for piece in lease.slices) / max(1, count)
    return int(psutil.virtual_memory().total * share)
