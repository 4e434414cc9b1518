"""Threads and memory of a worker, for orders that count in those instead of workers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distributed.worker_memory import parse_memory_limit

from jupyter_aistack.core.model.device import Inventory, SliceKind
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.placement.placement import place
from jupyter_aistack.core.placement.verdict import PlacementFailure
from jupyter_aistack.core.wire.records import DEVICE
from jupyter_aistack.exceptions import ClusterError

from .worker_leases import WorkerLeases

log = logging.getLogger("jupyter_aistack")


@dataclass(frozen=True, kw_only=True)
class WorkerSize:
    """What Dask is told of a worker.

    Attributes:
        threads: tasks at once.
        memory_bytes: host memory it may use.
    """

    threads: int
    memory_bytes: int


def told_size(worker: Mapping[str, Any]) -> WorkerSize | None:
    """The size of a worker that runs, as the scheduler knows it; None where its memory
    is not limited.
    """
    if not worker["memory_limit"]:
        return None
    return WorkerSize(
        threads=worker["nthreads"], memory_bytes=int(worker["memory_limit"])
    )


def expected_size(
    leases: WorkerLeases, threads: int | None, nanny: Mapping[str, Any]
) -> WorkerSize:
    """The size of a worker that does not run yet: that of the slice it would get on
    this host, were it idle.

    Args:
        leases: where its slice comes from.
        threads: tasks at once; None for what suits the slice.
        nanny: further arguments of its ``distributed.Nanny``, which go before.

    Raises:
        ClusterError: this host could not hold such a slice.
        AIStackError: what the host has is not known.
    """
    host = leases.client.host()
    devices = tuple(DEVICE.from_dict(device) for device in host["devices"])
    slices = place(
        parse_spec(leases.spec), Inventory(host=host["host"], devices=devices), ()
    )
    if isinstance(slices, PlacementFailure):
        raise ClusterError(
            f"how large a worker would be is not known: {slices.reason}; say how many workers"
        )
    cores = {core for slice_ in slices for core in slice_.cores}
    is_cpu = all(slice_.kind is SliceKind.CPU for slice_ in slices)
    own_threads = len(cores) if is_cpu else 1
    count = int(nanny.get("nthreads") or threads or own_threads)
    limit = parse_memory_limit(nanny.get("memory_limit", 0), count, logger=log)
    if limit is None and is_cpu:
        limit = sum(slice_.memory_bytes for slice_ in slices)
    memory = limit or leases.share_of_host_memory(slices)
    return WorkerSize(threads=count, memory_bytes=memory)
