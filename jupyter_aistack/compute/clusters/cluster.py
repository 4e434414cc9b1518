"""A Dask cluster whose every worker runs on a leased slice."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable
from typing import Any, Unpack

from distributed import Security, Status
from distributed.deploy.adaptive import Adaptive

from jupyter_aistack.client import client as clients
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.exceptions import (
    AcquireTimeout,
    AIStackError,
    ClusterError,
)
from jupyter_aistack.system.interrupts import DeferredInterrupts

from . import connections
from .cluster_view import QUIET_SECONDS, StartProgress, as_html, as_text, rows
from .dask_options import DaskOptions, checked_options, count_of
from .interruptible import InterruptibleCluster
from .lease_watch import LeaseWatch
from .worker import LeasedWorker, WorkerPlan
from .worker_leases import WorkerLeases
from .worker_size import WorkerSize, expected_size, told_size

log = logging.getLogger("jupyter_aistack")


class Cluster(InterruptibleCluster):
    """A Dask cluster on leased slices: one lease per worker, acquired before it starts
    and released with it.

    ``with``, ``async with`` and ``await`` work; ``scale`` and ``adapt`` are Dask's own.
    It ends with this process, however that ends. Ctrl-C while it starts, or closes,
    ends all that has been started and gives back all that was leased.

    Args:
        workers: how many workers.
        slice: what each of them gets, as in :func:`jupyter_aistack.request`.
        timeout: seconds to wait for each slice. None waits as long as another holder's
            lease stands in the way.
        threads: tasks a worker runs at once; by default one per core of a CPU slice,
            one on a GPU.
        queue: where to ask for the slices; empty for your own.
        name: what to call the cluster.
        security: by default (or with ``True``) all connections are encrypted and
            authenticated with certificates made for this cluster alone, so that no
            other user of the host can reach it. ``False`` for plain TCP, on loopback
            only; or a ``distributed.Security`` of your own.
        asynchronous: for use in a running event loop: nothing starts before ``await``.
        progress: called with a line that says how far a start is that takes longer than
            two seconds; prints it by default.
        nanny: further arguments of each worker's ``distributed.Nanny``.
        dask: arguments of Dask's ``LocalCluster``; which, says
            :class:`~jupyter_aistack.compute.clusters.dask_options.DaskOptions`.

    Raises:
        InvalidRequest: `workers`, `slice` or an option cannot be understood.
        Refused: this host could never hold such a slice, or policy says no.
        ClusterError: not all workers could get their slice (``AcquireTimeout`` is its
            cause), or a worker did not start. What had been acquired is released again.
    """

    def __init__(
        self,
        workers: int = 2,
        slice: str = "1/4",  # noqa: A002 - the word users know
        *,
        timeout: float | None = None,
        threads: int | None = None,
        queue: str = "",
        name: str | None = None,
        security: bool | Security | None = None,
        asynchronous: bool = False,
        progress: Callable[[str], None] | None = None,
        nanny: dict[str, Any] | None = None,
        **dask: Unpack[DaskOptions],
    ) -> None:
        count = count_of("workers", workers)
        options = checked_options(dask)
        self.slice = str(parse_spec(slice))
        self.owner_pid = os.getpid()
        self._tag = name or f"cluster-{uuid.uuid4().hex[:6]}"
        self._progress = StartProgress(progress)
        self._problem = ""
        self._threads = threads
        self._nanny = nanny or {}
        certificates = connections.security_of(security)
        scheduler = connections.scheduler_spec(certificates, options)
        with DeferredInterrupts(self._give_up, undo=self._abandon):
            self._leases = WorkerLeases(
                clients.connect(),
                self.slice,
                queue=queue,
                timeout=timeout,
                cluster=self._tag,
            )
            self._lease_watch = LeaseWatch(
                self._leases, lambda: self.workers.values(), self._close_worker
            )
            worker = self._new_worker(certificates, scheduler["options"])
            try:
                super().__init__(
                    workers=dict.fromkeys(range(count), worker),
                    worker=worker,
                    scheduler=scheduler,
                    security=certificates,
                    name=self._tag,
                    asynchronous=asynchronous,
                    loop=options["loop"],
                    silence_logs=options["silence_logs"],
                    shutdown_on_close=options["shutdown_on_close"],
                    scheduler_sync_interval=options["scheduler_sync_interval"],
                )
            except BaseException:
                # No lease of what was started may stay behind.
                self._abandon()
                raise

    def _new_worker(
        self, security: Security, scheduler: dict[str, Any]
    ) -> dict[str, Any]:
        """What Dask makes each worker from."""
        plan = WorkerPlan(
            leases=self._leases,
            threads=self._threads,
            nanny=connections.nanny_places(security, scheduler, self._nanny),
            is_wanted=lambda worker: (
                worker in self.worker_spec and not self._is_given_up
            ),
            on_change=self._show_progress,
        )
        return {"cls": LeasedWorker, "options": {"plan": plan, "security": security}}

    # -- starting and ending -----------------------------------------------------------

    async def _correct_state_internal(self) -> None:
        """Dask's own, but a worker that got no slice is named and forgotten instead of
        kept as failed.
        """
        self._progress.restart()
        if self.status is Status.running:
            self._lease_watch.start()
        asyncio.get_running_loop().call_later(QUIET_SECONDS, self._show_progress)
        wanted = len(self.worker_spec)
        try:
            await super()._correct_state_internal()
        except AIStackError as error:
            granted = self._forget_failed()
            if self._has_started or self._is_closing:
                self._note(self._failure(error, granted, wanted))
            elif isinstance(error, AcquireTimeout):
                raise self._failure(error, granted, wanted) from error
            else:
                raise
        else:
            self._problem = ""
            self._has_started = True

    def _failure(self, error: AIStackError, granted: int, wanted: int) -> AIStackError:
        """What to tell of a start at which only `granted` of the wanted workers got
        their slice.
        """
        if not isinstance(error, AcquireTimeout):
            return error
        return ClusterError(
            f"{granted} of {wanted} workers got their slice of {self.slice}; the next one waits: "
            f"{error.message}. Ask for fewer workers or smaller slices, or release what is not needed.",
            granted=granted,
            wanted=wanted,
        )

    async def _close_worker(self, worker: LeasedWorker, lease_id: str) -> None:
        if not worker.is_computing:  # closed on purpose meanwhile
            return
        # Forgotten first, or Dask would start another in its place.
        self.workers.pop(worker.name, None)
        self.worker_spec.pop(worker.name, None)
        self._note(
            ClusterError(
                f"worker {worker.name} was closed because its lease {lease_id} has ended; "
                "scale the cluster to start another"
            )
        )
        await worker.close()

    async def _start(self) -> None:
        await super()._start()
        if self.status is Status.running:
            connections.share_security(self.scheduler_address, self.security)

    async def _close(self) -> None:
        self._lease_watch.stop()
        address = self.scheduler_address
        await super()._close()
        connections.forget_security(address)

    def _forget_failed(self) -> int:
        """Drop workers that did not start; returns how many of the others hold a
        slice.
        """
        workers = list(self.workers.items())
        for name, worker in workers:
            if worker.status is Status.failed:
                del self.workers[name]
                self.worker_spec.pop(name, None)
        leases = [worker.lease for worker in self.workers.values()]
        return sum(lease is not None and lease.is_granted for lease in leases)

    def _note(self, failure: AIStackError) -> None:
        if self._is_closing:
            return
        is_new = self._problem != failure.message
        self._problem = failure.message
        if is_new:
            log.warning("%s", failure.message)

    # -- its size ----------------------------------------------------------------------

    def scale(
        self, n: int = 0, memory: str | int | None = None, cores: int | None = None
    ) -> Any:
        """Change the number of workers; returns before they are up, see `problem`.

        Args:
            n: how many workers.
            memory: so many that they have this memory together, ``"64GiB"`` or bytes.
            cores: so many that they run this many tasks at once.

        Raises:
            InvalidRequest: `n` is no number of workers; nothing is changed.
        """
        count = count_of("n", n)
        with DeferredInterrupts():
            self._problem = ""
            return super().scale(count, memory=memory, cores=cores)

    def adapt(self, *args: Any, **options: Any) -> Adaptive:
        """Let the number of workers follow the work; see ``distributed.Adaptive``.

        It takes ``minimum`` and ``maximum``, and the same of ``_cores`` and
        ``_memory``.
        """
        with DeferredInterrupts():
            self._problem = ""
            return super().adapt(*args, **options)

    def _threads_per_worker(self) -> int:
        return self._worker_size().threads

    def _memory_per_worker(self) -> int:
        return self._worker_size().memory_bytes

    def _worker_size(self) -> WorkerSize:
        told = map(told_size, self.scheduler_info["workers"].values())
        known = [size for size in told if size is not None]
        if known:
            return known[0]
        return expected_size(self._leases, self._threads, self._nanny)

    # -- showing -----------------------------------------------------------------------

    @property
    def problem(self) -> str:
        """Why the last `scale` did not give all workers, in one sentence; empty when it
        did.
        """
        return self._problem

    @property
    def slices(self) -> dict[object, tuple[Slice, ...]]:
        """The slices of each worker, by the worker's name."""
        return {
            name: worker.lease.slices
            for name, worker in self.workers.items()
            if worker.lease
        }

    @property
    def is_simulated(self) -> bool:
        """Whether the workers' devices are simulated."""
        leases = [worker.lease for worker in self.workers.values()]
        return any(lease and lease.enforced_by == "simulated" for lease in leases)

    @property
    def dashboard_link(self) -> str:
        """Address of Dask's dashboard, which nobody else can guess; empty without
        bokeh.
        """
        return connections.dashboard_link(
            self.scheduler_address,
            self.scheduler_info.get("services", {}),
            self.scheduler_spec["options"],
        )

    def _show_progress(self) -> None:
        if not self._is_closing:
            self._progress.update(self._created, len(self.worker_spec))

    def _headline(self) -> str:
        simulated = ", simulated" if self.is_simulated else ""
        ready = sum(worker.stage == "ready" for worker in self._created)
        place = f"{self._tag} at {self.scheduler_address}"
        return f"{place}: {ready} of {len(self.worker_spec)} workers on {self.slice} each{simulated}"

    def __repr__(self) -> str:
        table = rows(self._created)
        return as_text(self._headline(), table, self._problem, self.dashboard_link)

    def _repr_html_(self, cluster_status: Any = None) -> str:
        table = rows(self._created)
        own = as_html(self._headline(), table, self._problem, self.dashboard_link)
        return f"<div>{own}{cluster_status or ''}</div>"
