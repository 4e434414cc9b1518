"""MLflow behind the store port. It is imported when a run begins, and no sooner."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from jupyter_aistack.exceptions import TrackingError

from .active_run import ActiveRun
from .bounds import Bounds, bounded, chosen_read_seconds, failure_of
from .opening import one_sentence, open_experiment
from .progress import announced
from .store import (
    Batch,
    RejectedByStore,
    RunRejected,
    Store,
    first_line,
    without_secrets,
)

if TYPE_CHECKING:
    from .fingerprint import DataFingerprint

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
"""How long a server may take to answer one write, where the user has not set
MLFLOW_HTTP_REQUEST_TIMEOUT.
"""

_LASTING = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_DOES_NOT_EXIST",
}
"""MLflow's error codes of what fails again when it is tried again. A login that has run
out is none of them: it may be renewed.
"""


class MLflowStore(Store):
    """A new run of `experiment`, in the store at `uri`. Safe for threads.

    Raises:
        TrackingError: the store does not answer within seconds, or cannot be used.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        *,
        run_name: str | None,
        tags: Mapping[str, str],
    ) -> None:
        with announced("importing MLflow"):
            _import_mlflow()
        self._bounds = Bounds(
            connect_seconds=CONNECT_SECONDS,
            read_seconds=chosen_read_seconds(READ_SECONDS),
        )
        opening = announced(f"opening the tracking store {without_secrets(uri)}")
        with opening, _quiet(), bounded(self._bounds):
            self._client, experiment_id = open_experiment(uri, experiment)
            with one_sentence(f"no run can be started in {without_secrets(uri)}"):
                run = self._client.create_run(
                    experiment_id, tags=dict(tags), run_name=run_name
                )
        self.uri = uri
        self.run_id = run.info.run_id
        self.run_name = run.info.run_name
        self.active_run = ActiveRun(uri, run)
        if uri.startswith(("http://", "https://")):
            self.url = f"{without_secrets(uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{self.run_id}"

    def write(self, batch: Batch) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(p.name, p.value, p.timestamp_ms, p.step) for p in batch.points
        ]
        params = [Param(name, value) for name, value in batch.params.items()]
        tags = [RunTag(name, value) for name, value in batch.tags.items()]
        try:
            with self._calls():
                self._client.log_batch(self.run_id, metrics, params, tags)
        except RejectedByStore:
            # One entry alone: is it the entry that is refused, or the run?
            if len(batch) == 1:
                self._check_open()
            raise

    def _check_open(self) -> None:
        """Raises `RunRejected` when the run has been deleted."""
        try:
            with self._calls():
                stage = self._client.get_run(self.run_id).info.lifecycle_stage
        except RejectedByStore as error:
            raise RunRejected(error.message) from error
        if stage != "active":
            raise RunRejected(f"the run is {stage}")

    def add_file(self, path: str) -> None:
        log = (
            self._client.log_artifacts
            if os.path.isdir(path)
            else self._client.log_artifact
        )
        try:
            with self._calls():
                log(self.run_id, path)
        except FileNotFoundError as error:
            raise RejectedByStore(
                f"{path} has gone before it could be stored"
            ) from error

    def add_data(self, data: DataFingerprint) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=data.name,
            digest=data.digest,
            source_type=data.source_type,
            source=data.source,
            schema=data.schema_json(),
            profile=data.profile_json(),
        )
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        with self._calls():
            self._client.log_inputs(self.run_id, inputs)

    def finish(self, status: str, ended_at: float) -> None:
        with self._calls():
            self._client.set_terminated(
                self.run_id, status, end_time=round(ended_at * 1000)
            )

    @contextlib.contextmanager
    def _calls(self) -> Iterator[None]:
        """Calls of MLflow that are made once and within bounds, with errors as the port
        has them.
        """
        from mlflow.exceptions import MlflowException

        with bounded(self._bounds):
            try:
                yield
            except MlflowException as error:
                if error.error_code in _LASTING:
                    raise RejectedByStore(first_line(error)) from error
                raise TrackingError(failure_of(error).why) from error


def _import_mlflow() -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow.tracking  # noqa: F401
    except ImportError as error:
        raise TrackingError(
            'MLflow is not installed; run: pip install "jupyter_aistack[train]"'
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the notes about making a new database out of the notebook."""
    loggers = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
