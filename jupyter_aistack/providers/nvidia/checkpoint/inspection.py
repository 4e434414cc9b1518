"""What the processes of a kernel look like from outside: what of the driver's libraries
they use, and whether they are clients of an MPS server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from jupyter_aistack.system.pid_namespace import exists

MPS_VARIABLES = (
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_MPS_CLIENT_PRIORITY",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
)
LIBRARIES = {
    "libcuda.so": "cuda",
    "libnccl.so": "nccl",
    "libcudf.so": "managed",
    "librmm.so": "managed",
    "libbitsandbytes": "managed",
    "libToolsInjection": "profiler",
    "libcuinj64": "profiler",
    "libcupti": "cupti",
}
"""What a mapped library may mean. Each process of CUDA opens /dev/nvidia-uvm, so open
files tell nothing. Nsight Systems and Compute inject theirs
(``libToolsInjection64.so``, ``libcuinj64.so``). CUPTI alone says little: torch is linked
with it (pytorch#157381) and JAX loads it, so that it is mapped wherever they are.
"""


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process of a kernel, from outside.

    Attributes:
        pid: its id.
        is_own: it runs as this server's user.
        is_listed: the driver lists it on a device.
        has_context: it holds memory there, or may.
        uses: of `LIBRARIES`, what is mapped; None where that cannot be read.
        is_mps_client: its environment names an MPS server.
    """

    pid: int
    is_own: bool = True
    is_listed: bool = False
    has_context: bool = False
    uses: frozenset[str] | None = frozenset()
    is_mps_client: bool = False


def inspect_processes(
    pids: Iterable[int],
    contexts: Collection[int],
    *,
    listed: Collection[int] = (),
    proc: Path = Path("/proc"),
    exists: Callable[[int], bool] = exists,
) -> tuple[Process, ...]:
    """The processes `pids`, of which the driver lists `contexts` with memory, or with a
    figure that it keeps to itself, and `listed` at all. Those that have ended are left
    out, and not those that are hidden.
    """
    processes = []
    for pid in sorted(pids):
        process = _process(pid, proc / str(pid))
        if process is None and exists(pid):
            # Only another user's is: what it does is not to be known.
            process = Process(pid=pid, is_own=False, uses=None)
        if process is not None:
            has_context = pid in contexts
            is_listed = has_context or pid in listed
            processes.append(
                replace(process, has_context=has_context, is_listed=is_listed)
            )
    return tuple(processes)


def _process(pid: int, folder: Path) -> Process | None:
    try:
        owner = folder.stat().st_uid
    except OSError:
        return None
    return Process(
        pid=pid,
        is_own=owner == os.getuid(),
        uses=libraries(folder / "maps"),
        is_mps_client=_names_mps(folder / "environ"),
    )


def libraries(maps: Path) -> frozenset[str] | None:
    """What the libraries in a process's memory map may mean; None where it cannot be
    read.
    """
    try:
        with maps.open(encoding="utf-8", errors="replace") as lines:
            files = {line.rpartition("/")[2] for line in lines if ".so" in line}
    except OSError:
        return None
    return frozenset(
        meaning
        for name, meaning in LIBRARIES.items()
        if any(file.startswith(name) for file in files)
    )


def _names_mps(environ: Path) -> bool:
    try:
        entries = environ.read_bytes().split(b"\0")
    except OSError:
        return False
    named = dict(
        entry.decode(errors="replace").partition("=")[::2] for entry in entries
    )
    # What keeps a suspendable lease away from any MPS server.
    if named.get("CUDA_MPS_PIPE_DIRECTORY") == os.devnull:
        return False
    return not named.keys().isdisjoint(MPS_VARIABLES)
