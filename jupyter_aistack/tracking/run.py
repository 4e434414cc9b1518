"""``track()``: one run of an experiment, from the first line of its ``with`` to the
last.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from jupyter_aistack.client.display import Panel
from jupyter_aistack.core.model.units import format_duration
from jupyter_aistack.exceptions import AIStackError, InvalidRequest, TrackingError
from jupyter_aistack.system.users import current_user

from .cost import Cost
from .fingerprint import code_tags, data_fingerprint
from .store import Store, first_line, without_secrets
from .values import (
    MAX_PARAM,
    MAX_TAG,
    MetricSeries,
    checked_name,
    checked_number,
    shortened,
)
from .writer import Writer

if TYPE_CHECKING:
    from .usage_meter import RunMeter

log = logging.getLogger("jupyter_aistack")

FLUSH_SECONDS = 30.0
MAX_EXPERIMENT = 500


def track(
    experiment: str,
    *,
    run_name: str | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
) -> Run:
    """A run of `experiment`, to be used with ``with``.

    It is stored in MLflow, by default in an SQLite file, so no server is needed. What
    is logged goes to a queue in memory and is written by a thread, so a training loop
    never waits for the store.

    Args:
        experiment: name of the experiment; made when there is none.
        run_name: name of the run; MLflow invents one otherwise.
        tags, params: what to note at the start.
        tracking_uri: where to store it; see
            :func:`~jupyter_aistack.tracking.mlflow.default_uri` for the default.

    Raises (on entering the ``with``):
        InvalidRequest: a name cannot be used.
        TrackingError: the store cannot be opened.
    """
    is_name = isinstance(experiment, str) and bool(experiment.strip())
    if not is_name or len(experiment) > MAX_EXPERIMENT:
        raise InvalidRequest(
            f"experiment: expected a name of 1 to {MAX_EXPERIMENT} characters, got {experiment!r}",
            field="experiment",
        )
    return Run(
        experiment,
        run_name=run_name,
        tags=tags or {},
        params=params or {},
        tracking_uri=tracking_uri,
    )


class Run:
    """One run. Its methods may be called from any thread; none waits for the store.

    Attributes:
        experiment: name of the experiment.
        run_id: MLflow's id; empty before the ``with`` is entered.
        status: ``RUNNING``, then ``FINISHED``, ``FAILED`` (an exception) or ``KILLED``
            (interrupted, or the process ended).
    """

    def __init__(
        self,
        experiment: str,
        *,
        run_name: str | None,
        tags: Mapping[str, Any],
        params: Mapping[str, Any],
        tracking_uri: str | None,
    ) -> None:
        self.experiment = experiment
        self.run_id = ""
        self.status = "NEW"
        self._run_name = run_name
        self._tracking_uri = tracking_uri
        self._first_tags = {
            checked_name("tag", name): shortened(value, MAX_TAG)
            for name, value in tags.items()
        }
        self._first_params = {
            checked_name("param", name): value for name, value in params.items()
        }
        self._params: dict[str, str] = {}
        self._series: dict[str, MetricSeries] = {}
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._writer: Writer | None = None
        self._meter: RunMeter | None = None
        self._started_at = 0.0

    # -- what it is --------------------------------------------------------------------

    @property
    def metrics_logged(self) -> int:
        """How many points are in the store."""
        return self._writer.points_stored if self._writer else 0

    @property
    def tracking_uri(self) -> str:
        """Where the run is stored; empty before it has begun."""
        return self._store.uri if self._store else ""

    @property
    def url(self) -> str | None:
        """A page that shows the run; None for a store without a server (``mlflow ui``
        shows those).
        """
        return self._store.url if self._store else None

    @property
    def cost(self) -> Cost:
        """What the run has cost, so far or in the end."""
        return self._meter.cost if self._meter else Cost()

    # -- logging -----------------------------------------------------------------------

    def log(self, step: int | None = None, **metrics: Any) -> None:
        """Log metrics: ``run.log(loss=0.3, auc=0.9)``.

        Args:
            step: place on the curve; None counts the calls, for each metric by itself.
            metrics: numbers, also as 0-dimensional arrays or tensors.
        """
        for name, value in metrics.items():
            self.log_metric(name, value, step)

    def log_metric(self, name: str, value: Any, step: int | None = None) -> None:
        """Log one metric; for names that are no Python words, such as ``val/auc``."""
        writer = self._open()
        number = checked_number(checked_name("metric", name), value)
        # One lock for both: points of a metric reach the writer in their order.
        with self._lock:
            series = self._series.setdefault(name, MetricSeries(name=name))
            writer.point(series.next_point(step, number))

    def params(self, values: Mapping[str, Any]) -> None:
        """Note what the run was started with. A param is set once; another value for
        it is refused.
        """
        writer = self._open()
        for name, value in values.items():
            text = shortened(value, MAX_PARAM)
            known = self._params.setdefault(checked_name("param", name), text)
            if known != text:
                raise InvalidRequest(
                    f"param {name}: is {known!r} already and cannot become {text!r}; use a tag for what changes",
                    field="params",
                )
            writer.param(name, text)

    def tag(self, name: str, value: Any) -> None:
        """Note something that may change; the last value stays."""
        text = shortened(value, MAX_TAG)
        self._open().tag(checked_name("tag", name), text)

    def artifact(self, path: str | os.PathLike[str]) -> None:
        """Store a file or folder with the run. It is read in the background: leave it
        until the ``with`` ends.
        """
        writer = self._open()
        store = self._begun()
        absolute = os.path.abspath(path)
        if not os.path.exists(absolute):
            raise InvalidRequest(
                f"artifact: there is no file or folder {absolute}", field="path"
            )
        writer.job(lambda: store.add_file(absolute))

    def data(self, name: str, data: Any) -> None:
        """Note which data the run uses: a frame, a file or a folder; rows, columns,
        types and a hash are kept.
        """
        writer = self._open()
        store = self._begun()
        fingerprint = data_fingerprint(checked_name("data", name), data)
        writer.tag(f"aistack.data.{name}", fingerprint.digest)
        writer.job(lambda: store.add_data(fingerprint))

    def flush(self, timeout: float = FLUSH_SECONDS) -> None:
        """Wait until all is stored; raises `TrackingError` with how much is not after
        `timeout` seconds.
        """
        self._open().flush(timeout)

    # -- begin and end -----------------------------------------------------------------

    def __enter__(self) -> Run:
        from .mlflow import MLflowStore, default_uri

        if self._store is not None:
            raise TrackingError(
                "this run has begun already; call track() again for another"
            )
        self._started_at = time.time()
        self._meter = _start_meter()
        tags = {
            **code_tags(),
            "mlflow.user": current_user(),
            **self._slice_tags(),
            **self._first_tags,
        }
        uri = self._tracking_uri or default_uri()
        try:
            store = MLflowStore(
                uri, self.experiment, run_name=self._run_name, tags=tags
            )
        except BaseException:
            self._stop_meter()
            raise
        self._store = store
        self.run_id = store.run_id
        self.status = "RUNNING"
        self._writer = Writer(store)
        atexit.register(self._abandon)
        self.params(self._first_params)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.status != "RUNNING":
            return
        if error is not None and not isinstance(error, GeneratorExit):
            self.tag("aistack.error", f"{type(error).__name__}: {first_line(error)}")
        try:
            self._end(_status(error))
        except TrackingError as failure:
            # The error of the work itself goes on to the user.
            if error is None:
                raise
            log.warning("tracking: %s", failure.message)

    def _abandon(self) -> None:
        """The process ends with the run still open."""
        try:
            self._end("KILLED")
        except TrackingError as failure:
            log.warning("tracking: %s", failure.message)

    def _end(self, status: str) -> None:
        writer = self._open()
        store = self._begun()
        atexit.unregister(self._abandon)
        self._stop_meter()
        self._log_cost()
        for name, value in self._slice_tags().items():
            writer.tag(name, value)
        writer.job(lambda: store.finish(status))
        self.status = status
        try:
            writer.flush(FLUSH_SECONDS)
        finally:
            writer.close()

    def _stop_meter(self) -> None:
        if self._meter:
            self._meter.stop()

    def _log_cost(self) -> None:
        """The cost as metrics; what is not known is not logged."""
        if self._meter is None or not self._meter.has_leases:
            return
        for name, value in self.cost.as_dict().items():
            if value is not None:
                self.log_metric(f"aistack.{name}", value, 0)

    def _slice_tags(self) -> dict[str, str]:
        """On what the run ran; known better at the end, when the workers' leases have
        been sampled.
        """
        return self._meter.describe() if self._meter else {"aistack.slice": "unknown"}

    def _open(self) -> Writer:
        if self._writer is None or self.status != "RUNNING":
            raise TrackingError("the run is not open; log inside its `with` block")
        return self._writer

    def _begun(self) -> Store:
        assert self._store is not None  # _open() was called before
        return self._store

    def panel(self) -> Panel:
        """The run for people."""
        age = "not begun"
        if self._started_at:
            age = format_duration(time.time() - self._started_at)
        rows = [
            ("run", self.run_id),
            ("status", self.status),
            ("metrics stored", self.metrics_logged),
            ("age", age),
        ]
        uri = without_secrets(self.tracking_uri)
        viewer = self.url or (f"mlflow ui --backend-store-uri {uri}" if uri else "")
        return Panel(
            title=f"Experiment {self.experiment}",
            rows=rows,
            remark=f"look at it: {viewer}" if viewer else "",
        )

    def __repr__(self) -> str:
        return f"<run {self.run_id or '-'} of {self.experiment!r}: {self.status}, {self.metrics_logged} metrics stored>"

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> dict[str, str]:
        return self.panel()._repr_mimebundle_()


def _start_meter() -> RunMeter | None:
    """A running meter; None, with a warning, where no broker can be reached: the run
    goes on without its cost.
    """
    from jupyter_aistack.client import client

    from .usage_meter import RunMeter

    try:
        meter = RunMeter(client.connect())
        meter.start()
    except AIStackError as error:
        log.warning(
            "tracking: the slice and its cost are not recorded (%s)", first_line(error)
        )
        return None
    return meter


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "FAILED" if isinstance(error, Exception) else "KILLED"
