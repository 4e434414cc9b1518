"""One run of an experiment, from the first line of its ``with`` to the last."""

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
from jupyter_aistack.exceptions import InvalidRequest, TrackingError
from jupyter_aistack.system.completion import in_thread
from jupyter_aistack.system.users import current_user

from .artifacts import upload
from .cost import Cost
from .ending import end_at_once, end_run, status_of
from .fingerprint import code_tags, data_fingerprint, notebook_tags
from .progress import FlushProgress
from .run_panel import run_panel
from .store import Job, first_line
from .termination import guard
from .usage_meter import RunMeter, start_meter
from .values import (
    MAX_PARAM,
    MAX_TAG,
    MetricSeries,
    checked_name,
    checked_number,
    checked_step,
    shortened,
)
from .writer import Writer

if TYPE_CHECKING:
    from .mlflow import MLflowStore

log = logging.getLogger("jupyter_aistack")

FLUSH_SECONDS = 30.0
"""How long a store may take nothing before what it has not stored is given up."""

TERMINATED_SECONDS = 5.0
"""The same when the process is told to end: who tells it will not wait for long."""


class Run:
    """One run. Its methods may be called from any thread of the process that began it;
    of them only :meth:`flush` waits for the store.

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
        # A signal may end the run while its thread holds the lock.
        self._lock = threading.RLock()
        self._pid = 0
        self._store: MLflowStore | None = None
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
            metrics: numbers, also as arrays or tensors of one number.

        Raises:
            InvalidRequest: one of them is none; then nothing is logged.
        """
        place = None if step is None else checked_step(step)
        numbers = {
            name: checked_number(checked_name("metric", name), value)
            for name, value in metrics.items()
        }
        for name, number in numbers.items():
            self.log_metric(name, number, place)

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
        texts = {
            checked_name("param", name): shortened(value, MAX_PARAM)
            for name, value in values.items()
        }
        with self._lock:
            for name, text in texts.items():
                known = self._params.get(name, text)
                if known != text:
                    raise InvalidRequest(
                        f"param {name}: is {known!r} already and cannot become {text!r}; use a tag for what changes",
                        field="params",
                    )
            self._params |= texts
        for name, text in texts.items():
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
        writer.job(upload(store, path))

    def data(self, name: str, data: Any) -> None:
        """Note which data the run uses: a frame, a file or a folder; rows, columns,
        types and a hash are kept.
        """
        writer = self._open()
        store = self._begun()
        fingerprint = data_fingerprint(checked_name("data", name), data)
        writer.tag(f"aistack.data.{name}", fingerprint.digest)
        writer.job(Job(call=lambda: store.add_data(fingerprint)))

    def flush(self, timeout: float = FLUSH_SECONDS) -> None:
        """Wait until all is stored, as long as the store takes something.

        Args:
            timeout: give up when it has taken nothing for so many seconds.

        Raises:
            TrackingError: how much is not stored, and why.
        """
        self._open().flush(timeout, FlushProgress())

    # -- begin and end -----------------------------------------------------------------

    def __enter__(self) -> Run:
        self._prepare()
        try:
            self._begin(self._opened())
        except BaseException:
            self._give_up()
            raise
        return self

    async def __aenter__(self) -> Run:
        self._prepare()
        try:
            # It begins here all the same: the signals to end are this thread's.
            self._begin(await in_thread(self._opened))
        except BaseException:
            await in_thread(self._give_up)
            raise
        return self

    def _prepare(self) -> None:
        if self._store is not None:
            raise TrackingError(
                "this run has begun already; call track() again for another"
            )
        self._started_at = time.time()
        self._pid = os.getpid()
        self._meter = start_meter()

    def _opened(self) -> MLflowStore:
        """The run in its store, which is waited for."""
        from .active_run import default_uri
        from .mlflow import MLflowStore

        uri = self._tracking_uri or default_uri()
        self._store = MLflowStore(
            uri, self.experiment, run_name=self._run_name, tags=self._tags_at_begin()
        )
        return self._store

    def _begin(self, store: MLflowStore) -> None:
        self.run_id = store.run_id
        self.status = "RUNNING"
        self._writer = Writer(store)
        store.active_run.begin()
        atexit.register(self._abandon)
        guard.add(self._terminate)
        self.params(self._first_params)

    def _give_up(self) -> None:
        """What did not begin is not left running in its store."""
        if self._meter:
            self._meter.stop()
        if self.status == "RUNNING":
            self._leave("KILLED")
        if self._store:
            end_at_once(self._store, self._writer, "KILLED")

    def _tags_at_begin(self) -> dict[str, str]:
        label = self._meter.label if self._meter else ""
        return {
            **code_tags(label),
            "mlflow.user": current_user(),
            **self._slice_tags(),
            **self._first_tags,
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_ours_and_open():
            self._leave_with(error)
            self._store_end(error)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_ours_and_open():
            self._leave_with(error)
            await in_thread(lambda: self._store_end(error))

    def _leave_with(self, error: BaseException | None) -> None:
        """End it here, before the store is told."""
        if error is not None and not isinstance(error, GeneratorExit):
            self.tag("aistack.error", f"{type(error).__name__}: {first_line(error)}")
        self._log_last_tags()
        self._leave(status_of(error))

    def _store_end(self, error: BaseException | None) -> None:
        """Wait until all is stored, and tell the store the end."""
        if error is None:
            self._end(FLUSH_SECONDS)
        else:  # which goes on to the user, and not what the store says
            self._end_or_warn(FLUSH_SECONDS)

    def _is_ours_and_open(self) -> bool:
        """Whether this process may end the run: a child forked inside the ``with`` may
        not.
        """
        return self.status == "RUNNING" and self._pid == os.getpid()

    def _abandon(self) -> None:
        """The process ends with the run still open."""
        if self._is_ours_and_open():
            self._log_last_tags()
            self._leave("KILLED")
            self._end_or_warn(FLUSH_SECONDS)

    def _terminate(self) -> None:
        """The process has been told to end. The main thread is stopped anywhere, so no
        broker is asked: a lock of its client may be held.
        """
        if self._is_ours_and_open():
            self._leave("KILLED")
            self._end_or_warn(TERMINATED_SECONDS)

    def _log_last_tags(self) -> None:
        if self._meter:
            self._meter.stop()
        tags = self._slice_tags()
        if self._meter:
            tags |= notebook_tags(self._meter.label)
        for name, value in tags.items():
            self._open().tag(name, value)

    def _leave(self, status: str) -> None:
        store = self._begun()
        self._log_cost()
        self.status = status
        atexit.unregister(self._abandon)
        guard.remove(self._terminate)
        store.active_run.end()

    def _end_or_warn(self, timeout: float) -> None:
        try:
            self._end(timeout)
        except TrackingError as failure:
            log.warning("tracking: %s", failure.message)

    def _end(self, timeout: float) -> None:
        assert self._writer is not None  # it has begun
        end_run(self._begun(), self._writer, self.status, timeout=timeout)

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
        if self._pid != os.getpid():
            raise TrackingError(
                f"the run belongs to process {self._pid}, and this is a child forked from it; log there, or begin a "
                "run of its own here"
            )
        return self._writer

    def _begun(self) -> MLflowStore:
        assert self._store is not None  # it has begun
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
        return run_panel(self.experiment, rows, uri=self.tracking_uri, url=self.url)

    def __repr__(self) -> str:
        return f"<run {self.run_id or '-'} of {self.experiment!r}: {self.status}, {self.metrics_logged} metrics stored>"

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> dict[str, str]:
        return self.panel()._repr_mimebundle_()
