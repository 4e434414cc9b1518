"""``train``: runs a loop as one torch rank per Dask worker, and answers for all of them
in the notebook.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_aistack.compute.data.shards import plan_shards
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.exceptions import InvalidRequest

from .backend import choose_backend
from .serialize import dump_by_value
from .supervisor import Metrics, Supervisor, TrainingRun

if TYPE_CHECKING:
    from distributed import Client

START_SECONDS = 60.0
_PREFIX = "aistack-run-"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a training run gave.

    Attributes:
        results: what the loop returned, by rank.
        metrics: every point logged, in order of arrival: ``at`` (seconds since the
            epoch), ``rank``, ``attempt``, ``epoch``, ``step``, ``metrics`` (name to
            number).
        seconds: from the call to its return.
        rows: rows all ranks were given, in the last attempt.
        rows_per_second: of all ranks together, over the time their loops took.
        backend, backend_reason: what carried the gradients, and why that.
        restarts: how often the ranks were started again.
    """

    results: Sequence[Any] = field(repr=False)
    metrics: Sequence[Mapping[str, Any]] = field(repr=False)
    seconds: float
    rows: int
    rows_per_second: float
    backend: str
    backend_reason: str
    restarts: int

    @property
    def state(self) -> Any:
        """What the loop returned in rank 0."""
        return self.results[0]


def train(
    loop: Callable[[Any], Any],
    data: Any = None,
    *,
    workers: Any,
    epochs: int = 1,
    config: Mapping[str, Any] | None = None,
    on_metrics: Callable[[Metrics], None] | None = None,
    max_restarts: int = 0,
    checkpoint_dir: str | Path | None = None,
    timeout: float | None = None,
    seed: int = 0,
    backend: str = "auto",
) -> Result:
    """Run ``loop(ctx)`` in one torch rank per worker and wait for all of them.

    Args:
        loop: takes a :class:`~jupyter_aistack.compute.training.context.Context`; may be
            defined in the notebook.
        data: what ``ctx.data()`` reads: a Parquet folder, a Dask or pandas DataFrame, a
            dict of arrays, or nothing.
        workers: a :class:`~jupyter_aistack.Cluster`, a Dask client, or how many workers
            to start for this run alone.
        epochs: how many ``ctx.epochs()`` gives.
        config: whatever the loop wants to find in ``ctx.config``.
        on_metrics: called here, in the notebook's thread, with every point logged, at
            most five times a second.
        max_restarts: how often to start all ranks again from the last checkpoint when
            one of them, or its worker, dies. A loop that raises is not started again.
        checkpoint_dir: where checkpoints are kept; if one is there, ``ctx.restore()``
            goes on from it. By default they last as long as this call.
        timeout: seconds the whole run may take.
        seed: for torch in every rank, and for the order of the data.
        backend: ``nccl`` or ``gloo`` to insist on one of torch's; ``auto`` takes NCCL
            where every rank has whole GPUs of its own, and gloo elsewhere.

    Raises:
        TrainingError: a rank failed; the message ends with the traceback of the first
            that did.
        InvalidRequest: an argument makes no sense; it is named.
        KeyboardInterrupt: after all ranks have been stopped.
    """
    _check(loop, epochs, max_restarts)
    began = time.monotonic()
    with _folder() as folder, _client(workers) as (client, slices):
        names = sorted(_names(client), key=str)
        chosen, reason = choose_backend(
            [slices.get(name, ()) for name in names], backend
        )
        run = TrainingRun(
            folder=folder,
            workers=tuple(names),
            shards=tuple(_shards(client, data, len(names), folder)),
            loop=dump_by_value(loop),
            config=dump_by_value(dict(config or {})),
            epochs=epochs,
            seed=seed,
            backend=chosen,
            on_gpu=any(piece.uuid for own in slices.values() for piece in own),
            checkpoints=_checkpoint_folder(checkpoint_dir, folder),
        )
        supervisor = Supervisor(
            client,
            run,
            on_metrics=on_metrics,
            timeout=timeout,
            max_restarts=max_restarts,
        )
        found = supervisor.run()
    return _result(
        found,
        supervisor,
        seconds=time.monotonic() - began,
        backend=chosen,
        backend_reason=reason,
    )


def _result(
    found: Sequence[Mapping[str, Any]], supervisor: Supervisor, **known: Any
) -> Result:
    rows = sum(one["rows"] for one in found)
    busy = max(one["seconds"] for one in found)
    return Result(
        results=[one["value"] for one in found],
        metrics=supervisor.history,
        rows=rows,
        rows_per_second=rows / busy if busy else 0.0,
        restarts=supervisor.restarts,
        **known,
    )


def _check(loop: Any, epochs: int, max_restarts: int) -> None:
    if not callable(loop):
        raise InvalidRequest(
            f"loop: expected a function of one context, got {type(loop).__name__}",
            field="loop",
        )
    for name, value, least in (
        ("epochs", epochs, 1),
        ("max_restarts", max_restarts, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidRequest(
                f"{name}: expected a whole number from {least} up, got {value!r}",
                field=name,
            )


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Where notebook and ranks of one run meet; leases are of this host, so they all
    see it.
    """
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove what kernels that were killed have left; their pid is in the folder's
    name.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if (
                pid.isdigit()
                and left.stat().st_uid == os.getuid()
                and not Path("/proc", pid).exists()
            ):
                shutil.rmtree(left, ignore_errors=True)


def _checkpoint_folder(wanted: str | Path | None, folder: Path) -> Path:
    kept = folder / "checkpoints" if wanted is None else Path(wanted).resolve()
    kept.mkdir(parents=True, exist_ok=True)
    return kept


@contextlib.contextmanager
def _client(workers: Any) -> Iterator[tuple[Client, Mapping[object, Sequence[Slice]]]]:
    """A Dask client to the workers, and the slices of each worker as far as they are
    known.
    """
    from distributed import Client

    from jupyter_aistack.compute.clusters.cluster import Cluster

    if isinstance(workers, Client):
        cluster = workers.cluster
        yield workers, _slices(cluster) if isinstance(cluster, Cluster) else {}
    elif isinstance(workers, Cluster):
        with Client(workers, set_as_default=False) as client:
            client.wait_for_workers(
                max(1, len(workers.worker_spec)), timeout=START_SECONDS
            )
            yield client, _slices(workers)
    elif isinstance(workers, int) and not isinstance(workers, bool) and workers > 0:
        with Cluster(workers) as own, _client(own) as connected:
            yield connected
    else:
        raise InvalidRequest(
            f"workers: expected a Cluster, a Dask client or a number of workers, got {workers!r}",
            field="workers",
        )


def _slices(cluster: Any) -> Mapping[object, Sequence[Slice]]:
    """No torch sees a simulated GPU, so slices of one are as good as unknown."""
    slices: Mapping[object, Sequence[Slice]] = (
        {} if cluster.is_simulated else cluster.slices
    )
    return slices


def _names(client: Client) -> list[object]:
    return [worker["name"] for worker in client.scheduler_info()["workers"].values()]


def _shards(client: Client, data: Any, ranks: int, folder: Path) -> Sequence[Any]:
    if ranks == 0:
        raise InvalidRequest(
            "workers: there is not one worker to train on", field="workers"
        )
    with client.as_current():  # a Dask DataFrame is written by these workers
        return plan_shards(data, ranks, folder)
