"""The verbs of ``%cluster``: a Dask cluster, each worker on a slice of its own."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

from jupyter_aistack.client.display import Panel
from jupyter_aistack.exceptions import ClusterError
from jupyter_aistack.system.interrupts import DeferredInterrupts

from .commands import JSON, Answer, Verbs

SCALE_SECONDS = 60.0
POLL_SECONDS = 0.05


class ClusterCommands:
    """What ``%cluster`` does, a method for each verb.

    Args:
        namespace: the notebook's; ``cluster`` and ``client`` are put into it.
    """

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._cluster: Any = None
        self._dask_client: Any = None

    def verbs(self) -> Verbs:
        """By name, as the parser knows them."""
        return {
            "status": self._status,
            "up": self._up,
            "scale": self._scale,
            "down": self._down,
        }

    def _status(self, _: Namespace) -> Answer:
        if self._cluster is None:
            panel = Panel(
                title="No cluster is up", remark="%cluster up 2 starts two workers."
            )
            return {"workers": 0}, panel
        return _cluster_dict(self._cluster), self._cluster

    def _up(self, arguments: Namespace) -> Answer:
        if self._cluster is not None:
            raise ClusterError(
                "a cluster is up already; %cluster scale N changes it, %cluster down ends it"
            )
        from jupyter_aistack.client.durations import patience_seconds

        timeout = arguments.timeout
        if timeout is not None:
            timeout = patience_seconds(timeout)
        # Up and known here, or not at all: Ctrl-C must leave no cluster behind.
        with DeferredInterrupts(undo=self._close):
            self._cluster = _cluster_class()(
                arguments.workers,
                arguments.slice,
                timeout=timeout,
                queue=arguments.queue,
            )
            try:
                self._dask_client = self._cluster.get_client()
            except BaseException:
                self._close()
                raise
            self._namespace.update(cluster=self._cluster, client=self._dask_client)
        return self._status(arguments)

    def _scale(self, arguments: Namespace) -> Answer:
        if self._cluster is None:
            raise ClusterError("no cluster is up; %cluster up N starts one")
        before = len(self._cluster.worker_spec)
        self._cluster.scale(arguments.workers)
        try:
            self._await_workers(arguments.workers)
        except KeyboardInterrupt:
            # What has not come by now is wanted no more.
            self._cluster.scale(before)
            raise
        return self._status(arguments)

    def _await_workers(self, count: int) -> None:
        deadline = time.monotonic() + SCALE_SECONDS
        while time.monotonic() < deadline and _workers(self._cluster) != count:
            if self._cluster.problem:
                raise ClusterError(self._cluster.problem)
            time.sleep(POLL_SECONDS)

    def _down(self, _: Namespace) -> Answer:
        if self._cluster is None:
            title = "No cluster is up; there is nothing to stop"
            return {"workers": 0}, Panel(title=title)
        self._close()
        title = "The cluster is down and its slices are released"
        return {"workers": 0}, Panel(title=title)

    def _close(self) -> None:
        """End the cluster, to its end: Ctrl-C is raised when that is done."""
        with DeferredInterrupts():
            cluster = self._cluster
            dask_client = self._dask_client
            # First of all: a cluster whose end fails must not stand in the way of
            # another.
            self._cluster = None
            self._dask_client = None
            self._forget("cluster", cluster)
            self._forget("client", dask_client)
            if dask_client is not None:
                dask_client.close()
            if cluster is not None:
                cluster.close()

    def _forget(self, name: str, value: Any) -> None:
        """Take a variable from the notebook, unless the user has given it another
        value.
        """
        if value is not None and self._namespace.get(name) is value:
            del self._namespace[name]


def _cluster_class() -> Any:
    try:
        from jupyter_aistack.compute.clusters.cluster import Cluster
    except ImportError as error:
        raise ClusterError(
            'Dask is not installed; run: pip install "jupyter_aistack[train]"'
        ) from error
    return Cluster


def _workers(cluster: Any) -> int:
    return len(cluster.scheduler_info["workers"])


def _cluster_dict(cluster: Any) -> JSON:
    devices = {
        str(name): [slice_.device_id for slice_ in slices]
        for name, slices in cluster.slices.items()
    }
    return {
        "workers": _workers(cluster),
        "slice": cluster.slice,
        "devices": devices,
        "dashboard": cluster.dashboard_link,
    }
