"""The arguments that a cluster shares with Dask's own clusters, and what to say of those
that make no sense for it.
"""

from __future__ import annotations

import inspect
import logging
import numbers
from collections.abc import Mapping
from typing import Any, TypedDict

from distributed import Nanny, Worker

from jupyter_aistack.exceptions import InvalidRequest


class DaskOptions(TypedDict, total=False):
    """Arguments of a cluster, with the names and meanings of Dask's ``LocalCluster``.

    Attributes:
        host: address on which scheduler, workers and nannies listen; by default
            loopback, which no other host reaches.
        interface: network interface to listen on, instead of `host`.
        protocol: of the connections: ``tls``, ``tcp``, or, between whole GPUs, another
            of Dask's.
        scheduler_port: port of the scheduler; any by default.
        dashboard_address: where the dashboard listens, e.g. ``":8787"``; by default a
            free port of loopback; None for no dashboard.
        blocked_handlers: what clients may not ask of the scheduler, e.g.
            ``["run_function"]``.
        scheduler_kwargs: further arguments of ``distributed.Scheduler``.
        scheduler_sync_interval: seconds between two exchanges of what cluster and
            scheduler know of each other.
        silence_logs: the level below which Dask's logs are not shown; False for all.
        loop: the ``tornado.ioloop.IOLoop`` to run in, which runs already.
        shutdown_on_close: end with this Python process.
    """

    host: str | None
    interface: str | None
    protocol: str | None
    scheduler_port: int
    dashboard_address: str | None
    blocked_handlers: list[str] | None
    scheduler_kwargs: dict[str, Any] | None
    scheduler_sync_interval: float | str
    silence_logs: int | bool
    loop: Any
    shutdown_on_close: bool


DEFAULTS: DaskOptions = {
    "host": None,
    "interface": None,
    "protocol": None,
    "scheduler_port": 0,
    "dashboard_address": ":0",
    "blocked_handlers": None,
    "scheduler_kwargs": None,
    "scheduler_sync_interval": 1,
    "silence_logs": logging.WARNING,
    "loop": None,
    "shutdown_on_close": True,
}

_OWN_CLASSES = "scheduler_kwargs and nanny take their arguments"
_OTHERWISE = {
    "n_workers": "say workers",
    "threads_per_worker": "say threads",
    "memory_limit": "a worker's memory is that of its slice: say slice, e.g. 'cpu:1/4'",
    "processes": "a worker is always a process of its own, for a slice is given to a process",
    "worker_class": "say nanny={'worker_class': ...}",
    "worker_dashboard_address": "say nanny={'dashboard_address': ...}",
    "service_kwargs": "the dashboard's path is the cluster's own; see dashboard_link",
    "services": "the dashboard is the only service; see dashboard_address",
    "worker_services": "the workers have none; say nanny={'dashboard_address': ...}",
    "scheduler": f"a cluster starts its own scheduler and workers; {_OWN_CLASSES}",
    "worker": f"a cluster starts its own scheduler and workers; {_OWN_CLASSES}",
    "shutdown_scheduler": "the scheduler lives in this process and ends with the cluster",
}
"""What to do instead, by the names of arguments that Dask's clusters take and this one
does not.
"""


def count_of(name: str, count: Any) -> int:
    """A number of workers, of whatever type: Dask's own figures are floats where a
    maximum is infinite.

    Raises:
        InvalidRequest: the argument `name` is none.
    """
    is_number = isinstance(count, numbers.Real) and not isinstance(count, bool)
    if not is_number or count < 0 or count % 1 != 0:  # of infinity it is not-a-number
        raise InvalidRequest(
            f"{name}: expected a whole number from 0 up, got {count!r}", field=name
        )
    return int(count)


def checked_options(given: DaskOptions) -> DaskOptions:
    """The options with the defaults of those that are not given.

    Raises:
        InvalidRequest: one that a cluster does not take; it says what to do instead.
    """
    for name in given:
        if name not in DEFAULTS:
            raise InvalidRequest(f"{name}: {_instead_of(name)}", field=name)
    if given.get("host") and given.get("interface"):
        raise InvalidRequest("interface: give host or interface", field="interface")
    if str(given.get("protocol") or "").startswith("inproc"):
        raise InvalidRequest(
            "protocol: inproc is for threads of one process; workers are processes: tls or tcp",
            field="protocol",
        )
    return {**DEFAULTS, **given}


def _instead_of(name: str) -> str:
    if name in _OTHERWISE:
        return _OTHERWISE[name]
    if name in {**_parameters(Nanny), **_parameters(Worker)}:
        return f"workers take it from nanny={{'{name}': ...}}"
    return f"Cluster takes no such argument; of Dask's it takes {', '.join(DEFAULTS)}"


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters
