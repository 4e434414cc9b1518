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
import socket
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

from .heartbeat import Heartbeat, Phase
from .job import RankError, RankResult, TrainingJob
from .serialize import save_value

if TYPE_CHECKING:
    from .context import Context

LOOPBACK_NAMES = ("lo", "lo0")
"""The loopback interface of Linux, and of macOS and BSD."""

GROUP_SECONDS = {"gloo": 86400.0, "nccl": 1800.0}
"""How long a rank waits in a collective for the others, by torch's clock, which runs on
while all ranks are stopped together. The notebook sees who holds them up much sooner;
but with NCCL a rank that waits looks as if it computed, so there torch ends the wait.
"""


def main(job_file: Path, parent: int) -> NoReturn:
    """Run the loop, leave its result or its error in the run's folder, and exit."""
    job = TrainingJob.from_json(job_file.read_text())
    die_with_parent(parent, by_signal=True)
    own = os.getpid()
    code = 0
    try:
        _run(job)
    except BaseException as error:
        is_child = os.getpid() != own
        code = _status_of_child(error) if is_child else 1
        if not is_child:
            write_atomic(job.error_file, describe(error).to_json())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _status_of_child(error: BaseException) -> int:
    """How a process that the loop has forked ends: as Python does, and without a word
    in the name of the rank.
    """
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        return error.code or 0
    traceback.print_exception(error)
    return 1


def _run(job: TrainingJob) -> None:
    import torch

    cap_torch_memory(os.environ.get("AISTACK_MEMORY_FRACTION"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    torch.manual_seed(job.seed)
    heartbeat = Heartbeat(job.beat_file)
    heartbeat.start()
    device = _device(job)
    heartbeat.phase = Phase.JOINING
    store = _join_group(job, device)
    context = _context(job, device, heartbeat)
    signal.signal(signal.SIGTERM, lambda *_: context.stop())
    loop = pickle.loads(job.loop_file.read_bytes())

    own = os.getpid()
    began = time.monotonic()
    heartbeat.phase = Phase.COMPUTING
    value = loop(context)
    if os.getpid() != own:
        return  # a child that the loop has forked: the result is its parent's to leave
    if context.stopped:
        raise TrainingError("stopped")

    seconds = time.monotonic() - began
    result = RankResult(value=value, rows=context.rows, seconds=seconds)
    save_value(result, job.result_file, name="what the loop returned")
    heartbeat.phase = Phase.FINISHED
    _await_others(store, job)


def _device(job: TrainingJob) -> Any:
    import torch

    has_gpu = job.on_gpu and torch.cuda.is_available()
    return torch.device("cuda", 0) if has_gpu else torch.device("cpu")


def _join_group(job: TrainingJob, device: Any) -> Any:
    """Meet the other ranks; returns the store they share.

    Nothing of it is open to the network: the store is a file in the run's folder, which
    its user alone may enter, and connections are made on the loopback interface.
    """
    import torch.distributed

    dist: Any = torch.distributed  # its stores are exported, but not to type checkers
    timeout = timedelta(seconds=GROUP_SECONDS[job.backend])
    store = dist.FileStore(str(job.store_file), job.world_size)
    store.set_timeout(timeout)
    os.environ.update(
        RANK=str(job.rank), WORLD_SIZE=str(job.world_size), LOCAL_RANK="0"
    )
    if job.world_size == 1:
        return store
    _keep_to_loopback()
    dist.init_process_group(
        job.backend,
        store=dist.PrefixStore("group", store),
        rank=job.rank,
        world_size=job.world_size,
        timeout=timeout,
        device_id=device if job.backend == "nccl" else None,
    )
    return store


def _keep_to_loopback() -> None:
    """Have gloo and NCCL listen on the loopback interface, whatever the environment
    says: all ranks are on this host, and neither asks who connects.
    """
    os.environ.pop("NCCL_COMM_ID", None)  # an address to listen on
    names = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in LOOPBACK_NAMES if name in names), None)
    if loopback is not None:
        os.environ.update(GLOO_SOCKET_IFNAME=loopback, NCCL_SOCKET_IFNAME=loopback)


def _context(job: TrainingJob, device: Any, heartbeat: Heartbeat) -> Context:
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
        checkpoint_file=job.checkpoint_file,
        notice_file=job.notice_file,
        heartbeat=heartbeat,
    )


def _await_others(store: Any, job: TrainingJob) -> None:
    """Stay until all ranks have left their result: a connection that closes early can
    break the last collective of a slower rank.
    """
    store.set(f"done-{job.rank}", "")
    with contextlib.suppress(RuntimeError):  # their time is up, or one has failed
        store.wait([f"done-{rank}" for rank in range(job.world_size)])


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
