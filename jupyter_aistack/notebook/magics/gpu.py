"""``%gpu``, ``%%gpu`` and ``%cluster``: arguments in, one client call, result shown.

Registered by :mod:`jupyter_aistack.magics`: ``--ext=jupyter_aistack.magics`` in our
kernels, by ``%load_ext jupyter_aistack.magics`` elsewhere.
"""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from jupyter_aistack.client.display import Panel
from jupyter_aistack.client.durations import lease_seconds, patience_seconds
from jupyter_aistack.client.runtime import attach
from jupyter_aistack.core.wire.values import preparation_from_dict
from jupyter_aistack.exceptions import AIStackError, ClusterError, LeaseError
from jupyter_aistack.notebook.panels import accounting, views
from jupyter_aistack.notebook.panels.wait_progress import Progress
from jupyter_aistack.notebook.session.cell_runner import (
    AwaitedCells,
    compile_cell,
    needs_await,
    run,
    run_awaiting,
)
from jupyter_aistack.notebook.session.cell_timing import CellTimer
from jupyter_aistack.notebook.session.lease_sync import LeaseSync
from jupyter_aistack.notebook.suspend.resume_hooks import ResumeHooks

from . import arguments

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from jupyter_aistack.client.client import Client, LeaseHandle

JSON = dict[str, Any]
HOST_SECONDS = 30.0
SCALE_SECONDS = 60.0
WEEK_SECONDS = 7 * 86400.0


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Let our errors fail the cell, showing their sentence instead of a traceback."""
    try:
        yield
    except (AIStackError, KeyboardInterrupt) as error:
        line = f"{type(error).__name__}: {getattr(error, 'message', 'stopped')}"
        error._render_traceback_ = lambda: [line]  # type: ignore[union-attr] # IPython asks the instance for it
        raise error.with_traceback(None) from None


@magics_class
class AIStackMagics(Magics):
    """The magics of one shell."""

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.stay = ResumeHooks(
            shell, lambda verb, **payload: self._client().call(verb, **payload)
        )
        self.arrivals = LeaseSync(told=lambda mine: self.stay.agent.see(_own(mine)))
        self.awaited = AwaitedCells(shell)
        self.cells = CellTimer(shell)
        self._parsers = {
            "%gpu": arguments.gpu_parser(),
            "%%gpu": arguments.cell_parser(),
            "%cluster": arguments.cluster_parser(),
        }
        self._specs: tuple[float, list[str]] = (0.0, [])
        self._cluster: Any = None
        self._dask_client: Any = None

    # -- %gpu --------------------------------------------------------------------------

    @line_magic
    def gpu(self, line: str) -> Panel | None:
        """Lease a slice of this machine for this kernel; %gpu --help tells how."""
        verbs: dict[str, Callable[[Namespace], tuple[JSON, Panel]]] = {
            "status": self._status,
            "request": self._request,
            "release": self._release,
            "queue": self._queue,
            "extend": self._extend,
            "suspend": self._move,
            "resume": self._move,
            "pin": self._move,
            "unpin": self._move,
            "usage": self._usage,
            "advise": self._advise,
        }
        return self._run("%gpu", line, verbs)

    def _run(
        self,
        name: str,
        line: str,
        verbs: Mapping[str, Callable[[Namespace], tuple[JSON, Any]]],
    ) -> Any:
        with one_line_errors():
            try:
                given = self._parsers[name].parse(line)
            except arguments.HelpRequested as asked:
                print(asked)
                return None
            answer, shown = verbs[given.verb or "status"](given)
        if getattr(given, "json", False):
            print(json.dumps(answer, default=str))
            return None
        return shown

    def _client(self) -> Client:
        from jupyter_aistack.client import client

        return client.connect()

    def _status(self, given: Namespace) -> tuple[JSON, Panel]:
        client = self._client()
        mine = client.mine()
        host = client.host()
        own = _own(mine)
        if own is not None:
            workers = [lease for lease in mine["leases"] if lease["holder"]["parent"]]
            return mine, views.status_panel(
                own, workers, host, client.usage(), time.time()
            )
        waiting = _waiting(mine)
        return mine, views.waiting_panel(
            waiting[0], time.time()
        ) if waiting else views.nothing_panel(host)

    def _request(self, given: Namespace) -> tuple[JSON, Panel]:
        own = self._refuse_another(given.spec)
        if own is not None:
            return {"request": None, "lease": own}, self._status(given)[1]
        held = self._ask(given, wait=given.wait)
        answer = {"request": held.request, "lease": held.lease, "advice": held.advice}
        if held.is_granted:
            return answer, _with_line(self._status(given)[1], held.advice)
        self.arrivals.pending = held
        return answer, _with_line(
            views.waiting_panel(held.request, time.time()), held.advice
        )

    def _refuse_another(self, spec: str) -> JSON | None:
        """The lease this kernel has already, if it is what was asked for; another one
        is refused.
        """
        from jupyter_aistack.core.model.spec import parse_spec

        wanted = str(parse_spec(spec))
        mine = self._client().mine()
        own = _own(mine)
        waiting = _waiting(mine)
        if own is not None and own["spec"] != wanted:
            raise LeaseError(
                f"this kernel already holds {own['spec']} ({own['id']}); %gpu release it to ask for {wanted}"
            )
        if own is None and waiting:
            raise LeaseError(
                f"this kernel already waits for {waiting[0]['spec']}; %gpu release leaves the queue"
            )
        return own

    def _ask(self, given: Namespace, *, wait: bool) -> LeaseHandle:
        client = self._client()
        duration = (
            None
            if given.duration is None
            else lease_seconds(given.duration, field="for")
        )
        with Progress(given.spec) as progress:
            return client.request(
                given.spec,
                wait=wait,
                timeout=given.timeout,
                queue=given.queue,
                duration=duration,
                preemptible=given.preemptible,
                label=self._label() if client.transport == "embedded" else "",
                on_wait=progress,
            )

    def _label(self) -> str:
        """What to call this kernel where no Jupyter server knows it; VS Code puts the
        notebook's path in a variable.
        """
        return os.environ.get("JPY_SESSION_NAME") or str(
            self.shell.user_ns.get("__vsc_ipynb_file__", "")
        )

    def _release(self, given: Namespace) -> tuple[JSON, Panel]:
        from jupyter_aistack.client import client

        mine = self._client().mine()
        self.arrivals.pending = None
        attached = client.attached()
        own = _own(mine)
        if attached is not None:
            attached.release()
        elif own is not None:
            self._client().call("release", lease_id=own["id"])
            attach.leave(preparation_from_dict(mine["prepared"][own["id"]]))
        cancelled = [self._client().cancel(request["id"]) for request in _waiting(mine)]
        gone = [own] if own is not None else cancelled
        if not gone:
            return {"released": []}, Panel(
                title="This kernel holds no slice; there is nothing to release"
            )
        left = own is not None and attach.cuda_started()
        remark = (
            "CUDA still holds memory in this kernel: restart it to free the device."
            if left
            else ""
        )
        title = (
            f"Released {gone[0]['spec']}"
            if own is not None
            else f"Left the queue for {gone[0]['spec']}"
        )
        return {"released": [item["id"] for item in gone]}, Panel(
            title=title, remark=remark
        )

    def _queue(self, given: Namespace) -> tuple[JSON, Panel]:
        client = self._client()
        waiting = client.queue()
        own = (
            {request["id"] for request in client.mine()["requests"]}
            if waiting
            else set()
        )
        return {"queue": waiting}, views.queue_panel(waiting, own, time.time())

    def _extend(self, given: Namespace) -> tuple[JSON, Panel]:
        seconds = lease_seconds(given.duration)
        own = _own(self._client().mine())
        if own is None:
            raise LeaseError(
                "this kernel holds no slice to extend; %gpu request SPEC asks for one"
            )
        lease = self._client().call("extend", lease_id=own["id"], seconds=seconds)
        left = views.time_left(lease, time.time())
        kept = (
            ""
            if own["notice"] is None or lease["notice"]
            else "It is kept: it counts as used now."
        )
        return {"lease": lease}, Panel(
            title=f"{lease['spec']} ({lease['id']}): {left}", remark=kept
        )

    def _move(self, given: Namespace) -> tuple[JSON, Panel]:
        own = _own(self._client().mine())
        if own is None:
            raise LeaseError(
                "this kernel holds no slice; %gpu request SPEC asks for one"
            )
        lease = self._client().call(given.verb, lease_id=own["id"])
        return {"lease": lease}, views.residence_panel(lease, given.verb)

    def _usage(self, given: Namespace) -> tuple[JSON, Panel]:
        from jupyter_aistack.tracking.cost import cost

        client = self._client()
        if given.week:
            since = time.time() - WEEK_SECONDS
            bill = client.call(
                "bill", notebook=True, settle=True, since=since, label=self._label()
            )
            return bill, accounting.history_panel(bill)
        leases = client.mine()["leases"]
        usage = client.usage()
        spent = cost(client)
        bill = client.call("bill", settle=True)
        own = {lease["id"]: usage["leases"].get(lease["id"]) for lease in leases}
        shown = views.usage_panel(leases, usage, spent, accounting.bill_parts(bill))
        return {"leases": own, "cost": spent.as_dict(), "bill": bill}, shown

    def _advise(self, given: Namespace) -> tuple[JSON, Panel]:
        answer = self._client().call("advise", label=self._label())
        return answer, accounting.advice_panel(answer["advice"])

    # -- %%gpu -------------------------------------------------------------------------

    @cell_magic("gpu")  # type: ignore[arg-type]
    def gpu_cell(self, line: str, cell: str) -> Any:
        """Run this cell on a slice of its own and release it afterwards; %%gpu --help
        tells how.

        A cell that awaits gives a coroutine, which `AwaitedCells` lets IPython await.
        """
        with one_line_errors():
            try:
                given = self._parsers["%%gpu"].parse(line)
            except arguments.HelpRequested as asked:
                print(asked)
                return None
        codes = compile_cell(self.shell, cell)
        if needs_await(codes):
            return run_awaiting(codes, self.shell, lambda: self._lease_of_cell(given))
        with self._lease_of_cell(given):
            return run(codes, self.shell)

    @contextmanager
    def _lease_of_cell(self, given: Namespace) -> Iterator[None]:
        """The cell's own lease, which is gone before the cell has ended."""
        with self._ask_for_cell(given):
            try:
                yield
            finally:
                self.cells.tell_now(is_over=True)

    def _ask_for_cell(self, given: Namespace) -> LeaseHandle:
        with one_line_errors():
            if self._refuse_another(given.spec) is not None:
                raise LeaseError(
                    f"this kernel already holds {given.spec}: run the cell without %%gpu, or %gpu release first"
                )
            return self._ask(given, wait=True)

    # -- %cluster ----------------------------------------------------------------------

    @line_magic
    def cluster(self, line: str) -> Any:
        """A Dask cluster, each worker on a slice of its own; %cluster --help tells
        how.
        """
        verbs = {
            "status": self._cluster_status,
            "up": self._up,
            "scale": self._scale,
            "down": self._down,
        }
        return self._run("%cluster", line, verbs)

    def _cluster_status(self, given: Namespace) -> tuple[JSON, Any]:
        if self._cluster is None:
            return {"workers": 0}, Panel(
                title="No cluster is up", remark="%cluster up 2 starts two workers."
            )
        return _cluster_dict(self._cluster), self._cluster

    def _up(self, given: Namespace) -> tuple[JSON, Any]:
        if self._cluster is not None:
            raise ClusterError(
                "a cluster is up already; %cluster scale N changes it, %cluster down ends it"
            )
        try:
            from jupyter_aistack.compute.clusters.cluster import Cluster
        except ImportError as error:
            raise ClusterError(
                'Dask is not installed; run: pip install "jupyter_aistack[train]"'
            ) from error
        timeout = None if given.timeout is None else patience_seconds(given.timeout)
        self._cluster = Cluster(
            given.workers, given.slice, timeout=timeout, queue=given.queue
        )
        self._dask_client = self._cluster.get_client()
        self.shell.user_ns.update(cluster=self._cluster, client=self._dask_client)
        return self._cluster_status(given)

    def _scale(self, given: Namespace) -> tuple[JSON, Any]:
        if self._cluster is None:
            raise ClusterError("no cluster is up; %cluster up N starts one")
        self._cluster.scale(given.workers)
        deadline = time.monotonic() + SCALE_SECONDS
        while (
            len(self._cluster.scheduler_info["workers"]) != given.workers
            and time.monotonic() < deadline
        ):
            if self._cluster.problem:
                raise ClusterError(self._cluster.problem)
            time.sleep(0.05)
        return self._cluster_status(given)

    def _down(self, given: Namespace) -> tuple[JSON, Any]:
        if self._cluster is None:
            return {"workers": 0}, Panel(
                title="No cluster is up; there is nothing to stop"
            )
        ours = {"cluster": self._cluster, "client": self._dask_client}
        self._cluster = self._dask_client = None
        for name, value in ours.items():
            if self.shell.user_ns.get(name) is value:
                del self.shell.user_ns[name]
        ours["client"].close()
        ours["cluster"].close()
        return {"workers": 0}, Panel(
            title="The cluster is down and its slices are released"
        )

    # -- completion --------------------------------------------------------------------

    def complete(self, shell: InteractiveShell, event: Any) -> list[str]:
        """What may stand at the cursor; IPython's ``complete_command`` hook."""
        command, *words = event.text_until_cursor.split()
        parser = self._parsers[
            "%" + command.lstrip("%") if not command.startswith("%%") else command
        ]
        before = words if event.text_until_cursor.endswith((" ", "\t")) else words[:-1]
        typed = words[-1] if len(words) > len(before) else ""
        found = arguments.suggestions(parser, before, self._host_specs())
        # IPython completes from the last of its delimiters on, and a colon is one.
        skip = len(typed) - len(event.symbol)
        return [word[skip:] for word in found if word.startswith(typed)]

    def _host_specs(self) -> list[str]:
        """The MIG profiles of this host, asked for at most twice a minute; none when
        nobody answers.
        """
        asked_at, specs = self._specs
        if asked_at and time.monotonic() - asked_at < HOST_SECONDS:
            return specs
        with suppress(AIStackError):
            devices = self._client().host()["devices"]
            there = {
                instance["profile"] for device in devices for instance in device["mig"]
            }
            specs = sorted(there.union(*(device["mig_offers"] for device in devices)))
        self._specs = (time.monotonic(), specs)
        return specs


def _with_line(panel: Panel, line: str | None) -> Panel:
    """The panel with one more line to its remark."""
    return (
        replace(panel, remark="\n".join(filter(None, [panel.remark, line])))
        if line
        else panel
    )


def _own(mine: Mapping[str, Any]) -> JSON | None:
    """The lease of this kernel itself, not of one of its workers."""
    return next(
        (lease for lease in mine["leases"] if lease["id"] in mine["prepared"]), None
    )


def _waiting(mine: Mapping[str, Any]) -> list[JSON]:
    """The requests of this kernel itself."""
    return [request for request in mine["requests"] if not request["holder"]["parent"]]


def _cluster_dict(cluster: Any) -> JSON:
    slices = {
        str(name): [piece.device_id for piece in pieces]
        for name, pieces in cluster.slices.items()
    }
    workers = len(cluster.scheduler_info["workers"])
    return {
        "workers": workers,
        "slice": cluster.slice,
        "devices": slices,
        "dashboard": cluster.dashboard_link,
    }
