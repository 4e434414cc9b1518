"""One rank, in a process forked by `nest`; it ends with its parent.

A process of its own, because tearing down a process group inside a Dask worker can hold
the GIL until the scheduler gives the worker up; and it leaves through ``os._exit``,
because that teardown can also hang.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from jupyter_aistack.client.runtime.memory_caps import cap_torch_memory
from jupyter_aistack.exceptions import TrainingError
from jupyter_aistack.system.files import replacing, write_atomic
from jupyter_aistack.system.parent_death import die_with_parent

GROUP_SECONDS = 60.0
"""How long a rank waits in a collective for the others: torch's own limit of half an
hour leaves a notebook hanging.
"""


def main(job_file: Path, parent: int) -> None:
    """Run the loop, leave its result or its error in the run's folder, and go. Never
    returns.
    """
    job = json.loads(job_file.read_text())
    die_with_parent(parent, by_signal=True)
    code = 0
    try:
        _run(job)
    except BaseException as error:
        write_atomic(Path(job["error_file"]), json.dumps(describe(error)))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(job: dict[str, Any]) -> None:
    import torch

    cap_torch_memory(os.environ.get("AISTACK_MEMORY_FRACTION"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    torch.manual_seed(job["seed"])
    device = (
        torch.device("cuda", 0)
        if job["on_gpu"] and torch.cuda.is_available()
        else torch.device("cpu")
    )
    store = _join(job, device)
    context = _context(job, device)
    signal.signal(signal.SIGTERM, lambda *_: context.stop())
    loop = pickle.loads(Path(job["loop_file"]).read_bytes())
    began = time.monotonic()
    value = loop(context)
    if context.stopped:
        raise TrainingError("stopped")
    _leave_result(job, value, rows=context.rows, seconds=time.monotonic() - began)
    _wait_for_all(store, job)


def _join(job: dict[str, Any], device: Any) -> Any:
    """Meet the other ranks. Rank 0 opens a port of the system's choosing and writes
    down which.
    """
    import torch.distributed

    dist: Any = torch.distributed  # its stores are exported, but not to type checkers
    port_file = Path(job["port_file"])
    timeout = timedelta(seconds=GROUP_SECONDS)
    if job["rank"] == 0:
        store = dist.TCPStore(
            "127.0.0.1", 0, None, True, timeout, wait_for_workers=False
        )
        write_atomic(port_file, str(store.port))
    else:
        store = dist.TCPStore("127.0.0.1", _read_port(port_file), None, False, timeout)
    os.environ.update(
        RANK=str(job["rank"]), WORLD_SIZE=str(job["world_size"]), LOCAL_RANK="0"
    )
    if job["world_size"] > 1:
        if Path(
            "/sys/class/net/lo"
        ).exists():  # gloo would look its own host name up, which may lead nowhere
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            job["backend"],
            store=dist.PrefixStore("group", store),
            rank=job["rank"],
            world_size=job["world_size"],
            timeout=timeout,
            device_id=device if job["backend"] == "nccl" else None,
        )
    return store


def _read_port(file: Path) -> int:
    deadline = time.monotonic() + GROUP_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            return int(file.read_text())
        time.sleep(0.01)
    raise TrainingError("rank 0 did not start")


def _context(job: dict[str, Any], device: Any) -> Any:
    from jupyter_aistack.compute.data.batches import ShardReader
    from jupyter_aistack.compute.data.shards import Shard

    from .context import Context

    return Context(
        rank=job["rank"],
        world_size=job["world_size"],
        device=device,
        backend=job["backend"],
        epochs=job["epochs"],
        config=pickle.loads(Path(job["config_file"]).read_bytes()),
        seed=job["seed"],
        attempt=job["attempt"],
        reader=ShardReader(
            Shard.from_dict(job["shard"]), seed=job["seed"], device=device
        ),
        metrics_file=Path(job["metrics_file"]),
        checkpoint_folder=Path(job["checkpoint_folder"]),
        notice_file=Path(job["notice_file"]),
    )


def _leave_result(job: dict[str, Any], value: Any, **figures: float) -> None:
    import cloudpickle
    import torch

    with replacing(Path(job["result_file"])) as part:
        torch.save({"value": value, **figures}, part, pickle_module=cloudpickle)


def _wait_for_all(store: Any, job: dict[str, Any]) -> None:
    """Nobody leaves while another may still read from it."""
    store.add("done", 1)
    deadline = time.monotonic() + GROUP_SECONDS
    while (
        job["rank"] == 0
        and store.add("done", 0) < job["world_size"]
        and time.monotonic() < deadline
    ):
        time.sleep(0.005)


def describe(error: BaseException) -> dict[str, Any]:
    """An error as JSON, with its traceback from the loop downwards."""
    frames = traceback.TracebackException.from_exception(error)
    own = str(Path(__file__).resolve())
    frames.stack = traceback.StackSummary.from_list(
        [frame for frame in frames.stack if frame.filename != own]
    )
    return {
        "type": type(error).__name__,
        "message": str(error),
        "traceback": "".join(frames.format()),
        "failed_at": time.time(),
    }
