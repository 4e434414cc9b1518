"""A Dask cluster whose every worker runs on a leased slice."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Generator
from importlib.util import find_spec
from typing import Any

from distributed import Scheduler, Security, SpecCluster, Status

from jupyter_aistack.client import client as clients
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.exceptions import (
    AcquireTimeout,
    AIStackError,
    ClusterError,
    InvalidRequest,
)

from .cluster_view import QUIET_SECONDS, StartProgress, as_html, as_text, rows
from .worker import LeasedWorker, WorkerPlan
from .worker_leases import WorkerLeases

log = logging.getLogger("jupyter_aistack")

LEASE_CHECK_SECONDS = 2.0
"""How often the cluster checks that its workers' leases are still theirs."""


class Cluster(SpecCluster):
    """A Dask cluster on leased slices: one lease per worker, acquired before it starts
    and released with it.

    ``with``, ``async with`` and ``await`` work; ``scale`` and ``adapt`` are Dask's own.
    It ends with this process, however that ends.

    Args:
        workers: how many workers.
        slice: what each of them gets, as in :func:`jupyter_aistack.request`.
        timeout: seconds to wait for each slice. None waits as long as another holder's
            lease stands in the way.
        threads: tasks a worker runs at once; by default one per core of a CPU slice,
            one on a GPU.
        queue: where to ask for the slices; empty for your own.
        name: what to call the cluster.
        security: ``True`` encrypts and authenticates all connections with certificates
            made for this cluster alone, so that no other user of the host can reach it;
            the default where the package cryptography is installed. ``False`` for plain
            TCP, or a ``distributed.Security`` of your own.
        asynchronous: for use in a running event loop: nothing starts before ``await``.
        progress: called with a line that says how far a start is that takes longer than
            two seconds; prints it by default.
        nanny: further arguments of each worker's ``distributed.Nanny``.

    Raises:
        InvalidRequest: `workers` or `slice` cannot be understood.
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
    ) -> None:
        _check_count(workers)
        self.slice = str(parse_spec(slice))
        self.owner_pid = os.getpid()
        self._tag = name or f"cluster-{uuid.uuid4().hex[:6]}"
        self._progress = StartProgress(progress)
        self._problem = ""
        self._has_started = False
        self._lease_check: asyncio.Task[None] | None = None
        self._leases = WorkerLeases(
            clients.connect(),
            self.slice,
            queue=queue,
            timeout=timeout,
            cluster=self._tag,
        )
        plan = WorkerPlan(
            leases=self._leases,
            threads=threads,
            nanny=nanny or {},
            is_wanted=lambda worker: worker in self.worker_spec,
            on_change=self._show_progress,
        )
        connections = _security(security)
        worker = {
            "cls": LeasedWorker,
            "options": {"plan": plan, "security": connections},
        }
        scheduler = {"cls": Scheduler, "options": _scheduler_options(connections)}
        try:
            super().__init__(
                workers=dict.fromkeys(range(workers), worker),
                worker=worker,
                scheduler=scheduler,
                security=connections,
                name=self._tag,
                asynchronous=asynchronous,
                silence_logs=logging.WARNING,
            )
        except BaseException:
            # An error or Ctrl-C: no lease of what was started may stay behind.
            self._abandon()
            raise

    def _abandon(self) -> None:
        status = getattr(self, "status", Status.closed)
        if status not in (Status.closed, Status.created):
            self.close()

    # -- starting and ending -----------------------------------------------------------

    async def _correct_state_internal(self) -> None:
        """Dask's own, but a worker that got no slice is named and forgotten instead of
        kept as failed.
        """
        self._progress.restart()
        if self._lease_check is None and self.status is Status.running:
            self._lease_check = asyncio.create_task(self._check_leases())
        asyncio.get_running_loop().call_later(QUIET_SECONDS, self._show_progress)
        wanted = len(self.worker_spec)
        try:
            await super()._correct_state_internal()
        except AIStackError as error:
            granted = self._forget_failed()
            failure = self._failure(error, granted, wanted)
            if not self._has_started and not self._is_closing:
                raise failure from error
            self._note(failure)
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

    @property
    def _is_closing(self) -> bool:
        return self.status in (Status.closing, Status.closed)

    async def _check_leases(self) -> None:
        """Close workers whose lease has ended, by its time or by another's act: their
        slices may belong to other holders now.
        """
        while self.status is Status.running:
            await asyncio.sleep(LEASE_CHECK_SECONDS)
            workers = {
                worker.lease.id: worker
                for worker in self.workers.values()
                if worker.is_computing
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
                await self._close_worker(workers[lease_id], lease_id)

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

    async def _close(self) -> None:
        if self._lease_check is not None:
            self._lease_check.cancel()
            self._lease_check = None
        await super()._close()

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
        self._problem = failure.message
        log.warning("%s", failure.message)

    def __await__(self) -> Generator[Any, Any, Cluster]:
        if self.asynchronous:
            return super().__await__()
        return _ready(self).__await__()

    async def __aenter__(self) -> Cluster:
        return await super().__aenter__() if self.asynchronous else self

    async def __aexit__(self, *error: Any) -> None:
        if self.asynchronous:
            await super().__aexit__(*error)
        else:
            await asyncio.to_thread(self.close)

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
        """Address of Dask's dashboard; empty without bokeh."""
        return super().dashboard_link if find_spec("bokeh") else ""

    def _show_progress(self) -> None:
        if not self._is_closing:
            self._progress.update(self._created, len(self.worker_spec))

    def _headline(self) -> str:
        simulated = ", simulated" if self.is_simulated else ""
        ready = sum(worker.stage == "ready" for worker in self._created)
        return f"{self._tag}: {ready} of {len(self.worker_spec)} workers on {self.slice} each{simulated}"

    def __repr__(self) -> str:
        table = rows(self._created)
        return as_text(self._headline(), table, self._problem, self.dashboard_link)

    def _repr_html_(self, cluster_status: Any = None) -> str:
        table = rows(self._created)
        own = as_html(self._headline(), table, self._problem, self.dashboard_link)
        return f"<div>{own}{cluster_status or ''}</div>"


async def _ready(cluster: Cluster) -> Cluster:
    return cluster


def _check_count(workers: Any) -> None:
    is_number = isinstance(workers, int) and not isinstance(workers, bool)
    if not is_number or workers < 0:
        raise InvalidRequest(
            f"workers: expected a whole number from 0 up, got {workers!r}",
            field="workers",
        )


def _security(chosen: bool | Security | None) -> Security:
    """How connections are made; encrypted by default where that can be."""
    if isinstance(chosen, Security):
        return chosen
    is_encrypted = find_spec("cryptography") is not None if chosen is None else chosen
    return Security.temporary() if is_encrypted else Security()


def _scheduler_options(security: Security) -> dict[str, Any]:
    """On loopback only: every process that reaches a scheduler can run code as its
    owner.
    """
    has_dashboard = find_spec("bokeh") is not None
    return {
        "protocol": "tls://" if security.require_encryption else "tcp://",
        "host": "127.0.0.1",
        "port": 0,
        "dashboard": has_dashboard,
        "dashboard_address": "127.0.0.1:0" if has_dashboard else None,
        "security": security,
    }
