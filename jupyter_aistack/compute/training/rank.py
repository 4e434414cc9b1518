"""One rank, in a process forked by the fork server; it ends with its parent.

A process of its own, because tearing down a process group inside a Dask worker can hold
the GIL until the scheduler gives the worker up; and it leaves through ``os._exit``,
because that teardown can also hang.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jupyter_aistack.client.runtime.memory_caps import cap_torch_memory
from jupyter_aistack.exceptions import TrainingError
from jupyter_aistack.system.files import write_atomic
from jupyter_aistack.system.parent_death import die_with_parent

from .job import RankError, RankResult, TrainingJob
from .serialize import save_value

if TYPE_CHECKING:
    from .context import Context

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.01
GROUP_SECONDS = 60.0
"""How long a rank waits in a collective for the others: torch's own limit of half an
hour leaves a notebook hanging.
"""


def main(job_file: Path, parent: int) -> NoReturn:
    """Run the loop, leave its result or its error in the run's folder, and exit."""
    job = TrainingJob.from_json(job_file.read_text())
    die_with_parent(parent, by_signal=True)
    code = 0
    try:
        _run(job)
    except BaseException as error:
        write_atomic(job.error_file, describe(error).to_json())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(job: TrainingJob) -> None:
    import torch

    cap_torch_memory(os.environ.get("AISTACK_MEMORY_FRACTION"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    torch.manual_seed(job.seed)
    device = _device(job)
    store = _join_group(job, device)
    context = _context(job, device)
    signal.signal(signal.SIGTERM, lambda *_: context.stop())
    loop = pickle.loads(job.loop_file.read_bytes())

    began = time.monotonic()
    value = loop(context)
    if context.stopped:
        raise TrainingError("stopped")

    seconds = time.monotonic() - began
    result = RankResult(value=value, rows=context.rows, seconds=seconds)
    save_value(result, job.result_file, name="what the loop returned")
    _await_others(store, job)


def _device(job: TrainingJob) -> Any:
    import torch

    has_gpu = job.on_gpu and torch.cuda.is_available()
    return torch.device("cuda", 0) if has_gpu else torch.device("cpu")


def _join_group(job: TrainingJob, device: Any) -> Any:
    """Meet the other ranks; returns the store they share."""
    import torch.distributed

    dist: Any = torch.distributed  # its stores are exported, but not to type checkers
    timeout = timedelta(seconds=GROUP_SECONDS)
    store = _open_store(dist, job, timeout)
    os.environ.update(
        RANK=str(job.rank), WORLD_SIZE=str(job.world_size), LOCAL_RANK="0"
    )
    if job.world_size == 1:
        return store
    # gloo would look its own host name up, which may lead nowhere.
    if Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        job.backend,
        store=dist.PrefixStore("group", store),
        rank=job.rank,
        world_size=job.world_size,
        timeout=timeout,
        device_id=device if job.backend == "nccl" else None,
    )
    return store


def _open_store(dist: Any, job: TrainingJob, timeout: timedelta) -> Any:
    """The group's key-value store. Rank 0 opens a port of the system's choosing and
    writes down which: a port chosen beforehand could be taken by then.
    """
    if job.rank:
        return dist.TCPStore(LOOPBACK, _read_port(job.port_file), None, False, timeout)
    store = dist.TCPStore(LOOPBACK, 0, None, True, timeout, wait_for_workers=False)
    write_atomic(job.port_file, str(store.port))
    return store


def _read_port(file: Path) -> int:
    deadline = time.monotonic() + GROUP_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            return int(file.read_text())
        time.sleep(POLL_SECONDS)
    raise TrainingError("rank 0 did not start")


def _context(job: TrainingJob, device: Any) -> Context:
    from jupyter_aistack.compute.data.batches import ShardReader

    from .context import Context

    return Context(
        rank=job.rank,
        world_size=job.world_size,
        device=device,
        backend=job.backend,
        epochs=job.epochs,
        config=pickle.loads(job.config_file.read_bytes()),
        seed=job.seed,
        attempt=job.attempt,
        reader=ShardReader(job.shard, seed=job.seed, device=device),
        metrics_file=job.metrics_file,
        checkpoint_folder=job.checkpoint_folder,
        notice_file=job.notice_file,
    )


def _await_others(store: Any, job: TrainingJob) -> None:
    """Keep rank 0, which serves the store, until all ranks are done with it."""
    store.add("done", 1)
    deadline = time.monotonic() + GROUP_SECONDS
    if job.rank:
        return
    while store.add("done", 0) < job.world_size and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 2)


def describe(error: BaseException) -> RankError:
    """An error as it is reported to the notebook, with its traceback from the loop
    downwards.
    """
    frames = traceback.TracebackException.from_exception(error)
    own = str(Path(__file__).resolve())
    frames.stack = traceback.StackSummary.from_list(
        [frame for frame in frames.stack if frame.filename != own]
    )
    return RankError(
        type=type(error).__name__,
        message=str(error),
        traceback="".join(frames.format()),
        failed_at=time.time(),
    )
