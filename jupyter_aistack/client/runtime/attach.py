"""Giving a running process what its lease says: environment, cores, threads and memory
caps.

The devices a process sees are fixed when CUDA or ROCm starts, once and for good. So before
anything is changed, `started_runtime` asks the driver library itself; asking torch
alone would miss CuPy, JAX and the rest.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from jupyter_aistack.core.enforcement.device_visibility import (
    Visibilities,
    forced_prefixes,
    hidden_environment,
)
from jupyter_aistack.core.enforcement.memory_caps import merge_caps
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.core.enforcement.verification import Verdict
from jupyter_aistack.exceptions import DeviceInUse
from jupyter_aistack.system.own_process import own_threads
from jupyter_aistack.system.runtimes import started_runtime
from jupyter_aistack.system.verify import child

from .memory_caps import cap_memory

LAUNCH_LEASES = frozenset(os.environ.get("AISTACK_LEASE", "").split(",")) - {""}
"""Ids of the leases this process was started with; its launcher watches over them."""

_FORCED = ("AISTACK_", "OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "VECLIB_")


@dataclass(frozen=True, kw_only=True)
class SavedEnvironment:
    """What `attach` changed, so that `detach` can put it back.

    Attributes:
        environment: the variables; None where there was none.
        cores: those of the thread that attached.
        cores_of_threads: those of each thread, which a program may have bound itself.
        threads: how many torch used; None where there is no torch.
        pools: sets the thread pools that were there back; None where numpy was not.
    """

    environment: Mapping[str, str | None]
    cores: frozenset[int]
    cores_of_threads: Mapping[int, frozenset[int]]
    threads: int | None
    pools: ThreadPools | None


class ThreadPools(Protocol):
    """Thread pools of numerical libraries, and how many threads they had."""

    def restore_original_limits(self) -> None:
        """Give each as many again."""


def check_untouched(visibilities: Visibilities = ()) -> None:
    """Raise `DeviceInUse` when this process can no longer change its devices; nothing
    is changed.
    """
    started = started_runtime(visibilities)
    if started:
        raise DeviceInUse(
            f"{started} has already started in this process, so it cannot change devices any more: restart the kernel, "
            f"then request the slice before the first {started} call (or start the kernel with a slice)"
        )


def _changes_devices(prepared: Preparation) -> bool:
    """Whether it shows devices that this process does not see already."""
    lists = [name for each in prepared.visibility for name in each.lists]
    shown = {name: prepared.environment.get(name) for name in lists}
    return any(value and value != os.environ.get(name) for name, value in shown.items())


def attach(prepared: Preparation) -> SavedEnvironment:
    """Apply a preparation to this process; what a user has set for a framework is kept,
    of two caps the lower.

    Raises:
        DeviceInUse: CUDA or ROCm has already started and the preparation names devices.
    """
    if prepared.expects.visible or _changes_devices(prepared):
        check_untouched(prepared.visibility)
    forced = (*_FORCED, *forced_prefixes(prepared.visibility))
    wanted = merge_caps(os.environ, prepared.environment, forced=forced)
    before = SavedEnvironment(
        environment={name: os.environ.get(name) for name in wanted},
        cores=_cores_of(0),
        cores_of_threads={thread: _cores_of(thread) for thread in own_threads()},
        threads=_torch_threads(),
        pools=_thread_pools(),
    )
    # From here on all or nothing: a caller that fails must find the process as it was.
    try:
        os.environ.update(wanted)
        _bind_threads(prepared.cores)
        limit_threads(prepared.environment.get("OMP_NUM_THREADS"))
        cap_memory(prepared.environment)
    except BaseException:
        detach(before)
        raise
    return before


def detach(before: SavedEnvironment) -> None:
    """Put back what `attach` changed, as far as a running process allows."""
    for name, value in before.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # Threads that came since inherited the binding; those that were there get theirs.
    _bind_threads(sorted(before.cores))
    for thread, cores in before.cores_of_threads.items():
        _bind_thread(thread, sorted(cores))
    threads = before.threads or len(before.cores) or 1
    limit_threads(str(threads))
    if before.pools is not None:
        before.pools.restore_original_limits()
    cap_memory(os.environ)


def restore_environment(prepared: Preparation) -> None:
    """Undo a preparation this process was started with, after its lease is over.

    It then sees no device, and may use the cores its parent may use.
    """
    for name, value in prepared.environment.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    hidden = hidden_environment(prepared.visibility)
    os.environ.update(
        {name: value for name, value in hidden.items() if name in prepared.environment}
    )
    cap_memory(os.environ)
    if prepared.cores and hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(os.getppid()))
        _bind_threads(cores)
        limit_threads(str(len(cores)))


OnCheck = child.OnSlow
"""Called with the seconds so far while it takes long to check what a process got: a
driver's first start may.
"""


def unheard(seconds: float) -> None:
    """Nobody is told of the wait."""


def verify(
    expects: Expectation,
    is_client: child.IsClient | None = None,
    on_slow: OnCheck = unheard,
) -> Verdict:
    """Find out what a process with our environment really sees; see
    :func:`jupyter_aistack.system.verify.child.verify`.

    A child finds out, and this process is left untouched by CUDA.
    """
    return child.verify(
        expects,
        interpreter=sys.executable,
        environment=os.environ,
        is_client=is_client,
        on_slow=on_slow,
    )


def start_probe() -> child.ProbeResult:
    """A running child that sees what this process would, for another process to judge;
    close it. Raises as `ProbeResult` does.
    """
    return child.ProbeResult(interpreter=sys.executable, environment=os.environ)


def _cores_of(thread: int) -> frozenset[int]:
    """The cores that one of our threads may use (0: this one); none where that cannot
    be said.
    """
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    try:
        return frozenset(os.sched_getaffinity(thread))
    except OSError:  # it ended meanwhile
        return frozenset()


def _bind_threads(cores: Sequence[int]) -> None:
    for thread in own_threads():
        _bind_thread(thread, cores)


def _bind_thread(thread: int, cores: Sequence[int]) -> None:
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    with contextlib.suppress(OSError):  # it ended meanwhile
        os.sched_setaffinity(thread, cores)


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_num_threads"):
        return None
    return int(torch.get_num_threads())


def limit_threads(count: str | None) -> None:
    """Tell the thread pools that exist already; later pools read the environment."""
    if not count:
        return
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(int(count))
    if "numpy" in sys.modules:
        with contextlib.suppress(ImportError):
            from threadpoolctl import threadpool_limits

            threadpool_limits(int(count))


def _thread_pools() -> ThreadPools | None:
    """The pools of the libraries that numpy has loaded."""
    if "numpy" not in sys.modules:
        return None
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return None
    pools: ThreadPools = threadpool_limits(limits=None)
    return pools
