"""``train``: runs a loop as one torch rank per Dask worker, and answers for all of them
in the notebook.
"""

from __future__ import annotations

import contextlib
import numbers
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from jupyter_aistack.compute.data.shards import Shard, plan_shards
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.exceptions import InvalidRequest, TrainingError
from jupyter_aistack.system.interrupts import DeferredInterrupts

from .attempt import Metrics
from .backend import choose_backend
from .job import RankResult, TrainingRun
from .run_folder import run_folder
from .serialize import dump_argument
from .supervisor import Supervisor

if TYPE_CHECKING:
    from distributed import Client

    from jupyter_aistack.compute.clusters.cluster import Cluster

SlicesByWorker = Mapping[object, Sequence[Slice]]

START_SECONDS = 60.0
STALL_SECONDS = 60.0


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
    epochs: SupportsIndex = 1,
    config: Mapping[str, Any] | None = None,
    on_metrics: Callable[[Metrics], None] | None = None,
    max_restarts: SupportsIndex = 0,
    checkpoint_dir: str | Path | None = None,
    timeout: float | None = None,
    stall_timeout: float | None = STALL_SECONDS,
    seed: SupportsIndex = 0,
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
            one of them or its worker dies or stalls; never after a loop that raises.
        checkpoint_dir: where checkpoints are kept; ``ctx.restore()`` goes on from a
            checkpoint found there. By default they last as long as this call.
        timeout: seconds the whole run may take.
        stall_timeout: seconds that the other ranks wait for a rank that neither goes on
            nor computes, because it was stopped or waits for a disk. Time in which all
            ranks are stopped together does not count. None waits for ever.
        seed: for torch in every rank, and for the order of the data.
        backend: ``nccl`` or ``gloo`` to insist on that torch backend; ``auto`` takes
            NCCL where every rank has whole GPUs of its own, and gloo elsewhere.

    Raises:
        TrainingError: a rank failed; the message ends with the traceback of the first
            that did.
        InvalidRequest: an argument makes no sense; it is named.
        KeyboardInterrupt: after all ranks have been stopped.
    """
    options = RunOptions(
        loop=loop,
        data=data,
        config=dict(config or {}),
        epochs=epochs,
        on_metrics=on_metrics,
        max_restarts=max_restarts,
        checkpoint_dir=checkpoint_dir,
        timeout=timeout,
        stall_timeout=stall_timeout,
        seed=seed,
        backend=backend,
    )
    return _run(workers, options.checked())


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What `train` was asked for, besides where; its arguments say what each means."""

    loop: Callable[[Any], Any]
    data: Any
    config: Mapping[str, Any]
    epochs: SupportsIndex
    on_metrics: Callable[[Metrics], None] | None
    max_restarts: SupportsIndex
    checkpoint_dir: str | Path | None
    timeout: float | None
    stall_timeout: float | None
    seed: SupportsIndex
    backend: str

    def checked(self) -> RunOptions:
        """The same with Python's own numbers.

        Raises:
            InvalidRequest: an argument makes no sense; it is named.
        """
        _check_loop(self.loop)
        _check_seconds(timeout=self.timeout, stall_timeout=self.stall_timeout)
        return replace(
            self,
            epochs=_whole_number("epochs", self.epochs, minimum=1),
            max_restarts=_whole_number("max_restarts", self.max_restarts, minimum=0),
            seed=_whole_number("seed", self.seed, minimum=0),
        )


def _run(workers: Any, options: RunOptions) -> Result:
    """Run the loop on these workers, and wait for all of them."""
    began = time.monotonic()
    with run_folder() as folder, _dask_client(workers) as (client, slices):
        run = _plan_run(client, slices, folder, options)
        supervisor = Supervisor(
            client, run, on_metrics=options.on_metrics, timeout=options.timeout
        )
        ranks = supervisor.run()
    return _result(ranks, supervisor, seconds=time.monotonic() - began)


def _check_seconds(**times: Any) -> None:
    for name, value in times.items():
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        is_time = is_number and value > 0  # nan is not
        if value is not None and not is_time:
            raise InvalidRequest(
                f"{name}: expected a number of seconds above 0, or None, got {value!r}",
                field=name,
            )


def _plan_run(
    client: Client, slices: SlicesByWorker, folder: Path, options: RunOptions
) -> TrainingRun:
    """What is fixed for the run; data that must be written is written to `folder`."""
    names = sorted(_worker_names(client), key=str)
    by_rank = [slices.get(name, ()) for name in names]
    chosen, reason = choose_backend(by_rank, options.backend)
    return TrainingRun(
        folder=folder,
        workers=tuple(names),
        shards=tuple(_shards(client, options.data, len(names), folder)),
        loop=dump_argument("loop", options.loop),
        config=dump_argument("config", options.config),
        epochs=operator.index(options.epochs),
        seed=operator.index(options.seed),
        backend=chosen,
        backend_reason=reason,
        on_gpu=any(slice_.uuid for own in slices.values() for slice_ in own),
        checkpoints=_checkpoint_folder(options.checkpoint_dir, folder),
        stall_timeout=options.stall_timeout,
        max_restarts=operator.index(options.max_restarts),
    )


def _result(
    ranks: Sequence[RankResult], supervisor: Supervisor, *, seconds: float
) -> Result:
    run = supervisor.training_run
    rows = sum(rank.rows for rank in ranks)
    slowest = max(rank.seconds for rank in ranks)
    return Result(
        results=[rank.value for rank in ranks],
        metrics=supervisor.history,
        seconds=seconds,
        rows=rows,
        rows_per_second=rows / slowest if slowest else 0.0,
        backend=run.backend,
        backend_reason=run.backend_reason,
        restarts=supervisor.restarts,
    )


def _check_loop(loop: Any) -> None:
    if not callable(loop):
        raise InvalidRequest(
            f"loop: expected a function of one context, got {type(loop).__name__}",
            field="loop",
        )


def _whole_number(name: str, value: Any, *, minimum: int) -> int:
    """A count of whatever library, as Python's own number."""
    is_number = hasattr(value, "__index__") and not isinstance(value, bool)
    if not is_number or operator.index(value) < minimum:
        raise InvalidRequest(
            f"{name}: expected a whole number from {minimum} up, got {value!r}",
            field=name,
        )
    return operator.index(value)


def _checkpoint_folder(chosen: str | Path | None, folder: Path) -> Path:
    kept = folder / "checkpoints" if chosen is None else Path(chosen).resolve()
    kept.mkdir(parents=True, exist_ok=True)
    return kept


@contextlib.contextmanager
def _dask_client(workers: Any) -> Iterator[tuple[Client, SlicesByWorker]]:
    """A Dask client to the workers, and the slices of each worker as far as they are
    known.
    """
    from distributed import Client

    from jupyter_aistack.compute.clusters.cluster import Cluster

    is_count = hasattr(workers, "__index__") and not isinstance(workers, bool)
    if isinstance(workers, Client):
        cluster = workers.cluster
        yield workers, _slices(cluster) if isinstance(cluster, Cluster) else {}
    elif isinstance(workers, Cluster):
        count = max(1, len(workers.worker_spec))
        with _connected(workers) as client:
            _await_workers(client, count)
            yield client, _slices(workers)
    elif is_count and workers > 0:
        with Cluster(operator.index(workers)) as own, _dask_client(own) as connected:
            yield connected
    else:
        raise InvalidRequest(
            f"workers: expected a Cluster, a Dask client or a number of workers, got {workers!r}",
            field="workers",
        )


def _await_workers(client: Client, count: int) -> None:
    try:
        client.wait_for_workers(count, timeout=START_SECONDS)
    except TimeoutError as error:
        raise TrainingError(
            f"workers: the cluster did not have {count} workers within {START_SECONDS:g} s; "
            "show the cluster to see what they wait for, and scale it to what can be had",
            field="workers",
        ) from error


@contextlib.contextmanager
def _connected(cluster: Cluster) -> Iterator[Client]:
    """A client of its own, connected and closed whole: Dask leaves threads behind where
    Ctrl-C breaks that off.
    """
    from distributed import Client

    with contextlib.ExitStack() as stack:
        with DeferredInterrupts():
            client = Client(cluster, set_as_default=False)
            stack.callback(_close, client)
        yield client


def _close(client: Client) -> None:
    with DeferredInterrupts():
        client.close()


def _slices(cluster: Cluster) -> SlicesByWorker:
    """The slices of a cluster's workers. torch sees no simulated GPU, so slices of a
    simulated GPU are as good as unknown.
    """
    return {} if cluster.is_simulated else cluster.slices


def _worker_names(client: Client) -> list[object]:
    return [worker["name"] for worker in client.scheduler_info()["workers"].values()]


def _shards(client: Client, data: Any, ranks: int, folder: Path) -> Sequence[Shard]:
    if ranks == 0:
        raise InvalidRequest(
            "workers: there is not one worker to train on", field="workers"
        )
    with client.as_current():  # a Dask DataFrame is written by these workers
        return plan_shards(data, ranks, folder)
