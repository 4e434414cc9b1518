"""A Dask cluster whose every worker runs on a leased slice."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Generator
from html import escape
from importlib.util import find_spec
from typing import Any

from distributed import Scheduler, Security, SpecCluster, Status

from jupyter_aistack.client import client as clients
from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.exceptions import (
    AcquireTimeout,
    AIStackError,
    ClusterError,
    InvalidRequest,
)

from .worker import LeasedWorker, WorkerPlan

log = logging.getLogger("jupyter_aistack")

LOOK_SECONDS = 2.0
"""How often the cluster looks whether its workers' leases are still theirs."""

QUIET_SECONDS = 2.0
"""A start that takes no longer says nothing."""

_COLUMNS = ("worker", "state", "lease", "slice", "device", "memory", "enforced by")


class Cluster(SpecCluster):
    """A Dask cluster on leased slices: one lease per worker, acquired before it starts
    and released with it.

    ``with``, ``async with`` and ``await`` work; ``scale`` and ``adapt`` are Dask's own.
    It ends with this process, however that ends.

    Args:
        workers: how many workers.
        slice: what each of them gets, as in :func:`jupyter_aistack.request`.
        timeout: seconds to wait for each slice. None waits as long as somebody else's
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
        progress: told, in one line, how far a start that takes longer than two seconds
            is; prints it by default.
        nanny: further arguments of each worker's ``distributed.Nanny``.

    Raises:
        InvalidRequest: `workers` or `slice` cannot be understood.
        Refused: this host could never hold such a slice, or policy says no.
        ClusterError: not all workers could get their slice (``AcquireTimeout`` is its
            cause), or one did not start. What had been acquired is released again.
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
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise InvalidRequest(
                f"workers: expected a whole number from 0 up, got {workers!r}",
                field="workers",
            )
        self.slice = str(parse_spec(slice))
        self.owner_pid = os.getpid()
        self._watch: asyncio.Task[None] | None = None
        self._tag = name or f"cluster-{uuid.uuid4().hex[:6]}"
        self._progress = progress or _print_line
        self._told = ""
        self._problem = ""
        self._is_up = False
        self._busy_since = time.monotonic()
        safe = _security(security)
        self._client = clients.connect()
        plan = WorkerPlan(
            client=self._client,
            spec=self.slice,
            queue=queue,
            timeout=timeout,
            threads=threads,
            nanny=nanny or {},
            holder_id=lambda worker: f"{self._tag}-{worker}",
            is_wanted=lambda worker: worker in self.worker_spec,
            on_change=self._report,
        )
        worker = {"cls": LeasedWorker, "options": {"plan": plan, "security": safe}}
        try:
            super().__init__(
                workers=dict.fromkeys(range(workers), worker),
                worker=worker,
                scheduler={"cls": Scheduler, "options": _scheduler_options(safe)},
                security=safe,
                name=self._tag,
                asynchronous=asynchronous,
                silence_logs=logging.WARNING,
            )
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Close what was started before an error or Ctrl-C, so that no lease stays
        behind.
        """
        if getattr(self, "status", Status.closed) not in (
            Status.closed,
            Status.created,
        ):
            self.close()

    # -- starting and ending -----------------------------------------------------------

    async def _correct_state_internal(self) -> None:
        """Dask's own, but a worker that got no slice is named and forgotten instead of
        kept as a corpse.
        """
        self._busy_since = time.monotonic()
        self._told = ""
        if self._watch is None and self.status is Status.running:
            self._watch = asyncio.create_task(self._watch_leases())
        asyncio.get_running_loop().call_later(QUIET_SECONDS, self._report)
        wanted = len(self.worker_spec)
        try:
            await super()._correct_state_internal()
            self._problem = ""
            self._is_up = True
        except AIStackError as error:
            granted = self._forget_failed()
            if not isinstance(error, AcquireTimeout):
                failure = error
            else:
                failure = ClusterError(
                    f"{granted} of {wanted} workers got their slice of {self.slice}; the next one waits: "
                    f"{error.message}. Ask for fewer workers or smaller slices, or release what is not needed.",
                    granted=granted,
                    wanted=wanted,
                )
            if not self._is_up and self.status not in (Status.closing, Status.closed):
                raise failure from error
            self._note(failure)

    async def _watch_leases(self) -> None:
        """Close workers whose lease has ended, by its time or by somebody else: their
        slices belong to others now.
        """
        while self.status is Status.running:
            await asyncio.sleep(LOOK_SECONDS)
            held = {
                worker.lease.id: worker
                for worker in self.workers.values()
                if _computes(worker)
            }
            if not held:
                continue
            try:
                live = {
                    lease["id"]
                    for lease in await asyncio.to_thread(self._client.leases)
                }
            except AIStackError:
                continue  # not knowing is no reason to end work; it is looked at again
            except RuntimeError:  # the interpreter ends and starts no more threads; the cluster ends with it
                return
            for lease_id in held.keys() - live:
                await self._lose(held[lease_id], lease_id)

    async def _lose(self, worker: LeasedWorker, lease_id: str) -> None:
        if not _computes(worker):  # closed on purpose meanwhile
            return
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
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        await super()._close()

    def _forget_failed(self) -> int:
        """Drop workers that did not start; returns how many of the others hold a
        slice.
        """
        failed = [
            name
            for name, worker in self.workers.items()
            if worker.status is Status.failed
        ]
        for name in failed:
            del self.workers[name]
            self.worker_spec.pop(name, None)
        return sum(
            bool(worker.lease and worker.lease.is_granted)
            for worker in self.workers.values()
        )

    def _note(self, failure: AIStackError) -> None:
        if self.status in (Status.closing, Status.closed):
            return
        self._problem = failure.message
        log.warning("%s", failure.message)

    def __await__(self) -> Generator[Any, Any, Cluster]:
        return (
            _ready(self).__await__() if not self.asynchronous else super().__await__()
        )

    async def __aenter__(self) -> Cluster:
        return self if not self.asynchronous else await super().__aenter__()

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
        return any(
            w.lease and w.lease.enforced_by == "simulated"
            for w in self.workers.values()
        )

    @property
    def dashboard_link(self) -> str:
        """Address of Dask's dashboard; empty without bokeh."""
        return super().dashboard_link if find_spec("bokeh") else ""

    def _report(self) -> None:
        """Tell how far a start is, once it takes long, and only when that changed."""
        if (
            self.status in (Status.closing, Status.closed)
            or time.monotonic() - self._busy_since < QUIET_SECONDS
        ):
            return
        stages = {str(worker.name): worker.stage for worker in self._created}
        ready = sum(stage == "ready" for stage in stages.values())
        pending = [
            f"worker {name} {stage}"
            for name, stage in sorted(stages.items())
            if stage not in ("ready", *_GONE)
        ]
        line = "; ".join(
            [f"{ready} of {len(self.worker_spec)} workers ready", *pending[:1]]
        )
        if line != self._told and (pending or self._told):
            self._told = line
            self._progress(line)

    def _rows(self) -> list[tuple[str, ...]]:
        shown = {
            str(worker.name): worker
            for worker in self._created
            if worker.stage not in _GONE
        }
        return [_row(shown[name]) for name in sorted(shown)]

    def _headline(self) -> str:
        simulated = ", simulated" if self.is_simulated else ""
        ready = sum(worker.stage == "ready" for worker in self._created)
        return f"{self._tag}: {ready} of {len(self.worker_spec)} workers on {self.slice} each{simulated}"

    def _footer(self) -> str:
        return (
            self._problem
            or self.dashboard_link
            or "no dashboard: install bokeh to see one"
        )

    def __repr__(self) -> str:
        lines = [self._headline(), *("  " + "  ".join(row) for row in self._rows())]
        return "\n".join([*lines, f"  {self._footer()}"])

    def _repr_html_(self, cluster_status: Any = None) -> str:
        cells = [
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
            for row in self._rows()
        ]
        head = "".join(f"<th>{escape(column)}</th>" for column in _COLUMNS)
        link = self.dashboard_link
        foot = f'<a href="{escape(link)}" target="_blank">dashboard</a>' if link else ""
        foot = f"<p>{escape(self._problem)} {foot or escape(self._footer())}</p>"
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(cells)}</tbody></table>"
        return f"<div><strong>{escape(self._headline())}</strong>{table}{foot}{cluster_status or ''}</div>"


_GONE = ("failed", "closed")


def _computes(worker: LeasedWorker) -> bool:
    return worker.stage == "ready" and worker.status is Status.running


async def _ready(cluster: Cluster) -> Cluster:
    return cluster


def _security(wanted: bool | Security | None) -> Security:
    if isinstance(wanted, Security):
        return wanted
    is_safe = find_spec("cryptography") is not None if wanted is None else wanted
    return Security.temporary() if is_safe else Security()


def _scheduler_options(security: Security) -> dict[str, Any]:
    """On loopback only: whoever reaches a scheduler can run code as its owner."""
    has_board = find_spec("bokeh") is not None
    return {
        "protocol": "tls://" if security.require_encryption else "tcp://",
        "host": "127.0.0.1",
        "port": 0,
        "dashboard": has_board,
        "dashboard_address": "127.0.0.1:0" if has_board else None,
        "security": security,
    }


def _row(worker: LeasedWorker) -> tuple[str, ...]:
    lease = worker.lease
    if lease is None or not lease.is_granted:
        return (str(worker.name), worker.stage, "", worker.plan.spec, "", "", "")
    devices = ", ".join(piece.device_id for piece in lease.slices)
    held = lease.enforcement
    if lease.verified is False:
        held += f" ({conditions_text(lease.conditions)})"
    return (
        str(worker.name),
        worker.stage,
        lease.id,
        lease.spec,
        devices,
        format_bytes(lease.memory_bytes),
        held,
    )


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
