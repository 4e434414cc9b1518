"""What keeps a worker within its slice, and from outliving the process it works for.
Runs inside the worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from typing import Any

from distributed import WorkerPlugin

from jupyter_aistack.client.runtime import attach as attaching
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.system.parent_death import die_with_parent
from jupyter_aistack.system.verify.child import ProbeResult


class SliceGuard(WorkerPlugin):
    """Binds a Dask worker to its slice's cores and threads, and its life to the process
    that owns the cluster.
    """

    name = "aistack-slice"

    def __init__(self, preparation: Preparation) -> None:
        self.preparation = preparation
        self.owner = os.getpid()

    def setup(self, worker: Any) -> None:
        """Called in the worker's process before its first task."""
        die_with_parent(self.owner)
        # Interrupting a kernel interrupts its whole process group; only the notebook's
        # own work is meant. Up to here it was blocked; see `Cluster`.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        # Devices were chosen by the environment the process was started with; here CUDA
        # may have started already.
        attaching.attach(replace(self.preparation, expects=Expectation()))


class RMMCeiling(WorkerPlugin):
    """Lets RMM allocate at most so many bytes (dask-cuda's own setting asks the parent
    of a MIG instance).
    """

    name = "aistack-rmm"

    def __init__(self, device_bytes: int) -> None:
        self.device_bytes = device_bytes

    def setup(self, worker: Any) -> None:
        """Called in the worker's process before its first task."""
        import rmm

        pool = rmm.mr.CudaAsyncMemoryResource()
        rmm.mr.set_current_device_resource(
            rmm.mr.LimitingResourceAdaptor(pool, allocation_limit=self.device_bytes)
        )


_probes: dict[int, ProbeResult] = {}
"""Running probes by pid."""


async def start_probe() -> dict[str, Any] | str:
    """What a child of the worker sees (see `probe`), or why that is unknown; it runs
    until `close_probe`.

    The owner of the cluster judges, as it alone can ask whether the slice's server
    knows the child.
    """
    import asyncio

    try:
        probe = await asyncio.to_thread(attaching.start_probe)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return type(error).__name__
    _probes[probe.seen["pid"]] = probe
    return probe.seen


async def close_probe(pid: int) -> None:
    """End a probe, if it still runs."""
    import asyncio

    probe = _probes.pop(pid, None)
    if probe is not None:
        await asyncio.to_thread(probe.close)
