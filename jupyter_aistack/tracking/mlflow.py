"""MLflow behind the store port; the only module that imports it, and only when a run
begins.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_aistack.exceptions import TrackingError

from .store import Batch, RejectedByStore, Store, first_line, without_secrets

if TYPE_CHECKING:
    from .fingerprint import DataFingerprint

_LASTING = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "PERMISSION_DENIED",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
}
"""MLflow's error codes of what fails again when it is tried again."""


class MLflowStore(Store):
    """A new run of `experiment`, in the store at `uri`. Safe for threads; MLflow's own
    active run is left alone.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        *,
        run_name: str | None,
        tags: Mapping[str, str],
    ) -> None:
        _prepare_folder(uri)
        with _quiet():
            self._client = _client(uri)
            with _one_sentence(f"no run can be started in {without_secrets(uri)}"):
                experiment_id = _experiment_id(self._client, uri, experiment)
                run = self._client.create_run(
                    experiment_id, tags=dict(tags), run_name=run_name
                )
        self.uri = uri
        self.run_id = run.info.run_id
        self.run_name = run.info.run_name
        if uri.startswith(("http://", "https://")):
            self.url = f"{without_secrets(uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{self.run_id}"

    def write(self, batch: Batch) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(p.name, p.value, p.timestamp_ms, p.step) for p in batch.points
        ]
        params = [Param(name, value) for name, value in batch.params.items()]
        tags = [RunTag(name, value) for name, value in batch.tags.items()]
        with _lasting_as_rejected():
            self._client.log_batch(self.run_id, metrics, params, tags)

    def add_file(self, path: str) -> None:
        log = (
            self._client.log_artifacts
            if os.path.isdir(path)
            else self._client.log_artifact
        )
        try:
            with _lasting_as_rejected():
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
        with _lasting_as_rejected():
            self._client.log_inputs(self.run_id, inputs)

    def finish(self, status: str) -> None:
        with _lasting_as_rejected():
            self._client.set_terminated(self.run_id, status)


def default_uri() -> str:
    """Where runs go by default: where MLflow is set to store them, else beside the
    notebook, else with the user's data.

    ``mlflow.set_tracking_uri`` and MLFLOW_TRACKING_URI go first; then an ``mlflow.db``
    in the working folder, which is where MLflow itself keeps its database; then
    ``aistack/mlflow.db`` in Jupyter's data directory.
    """
    mlflow: Any = sys.modules.get("mlflow")
    if mlflow is not None and mlflow.is_tracking_uri_set():
        return str(mlflow.get_tracking_uri())
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    if configured:
        return configured
    beside = Path("mlflow.db").resolve()
    if beside.exists():
        return f"sqlite:///{beside}"
    from jupyter_core.paths import jupyter_data_dir

    return f"sqlite:///{Path(jupyter_data_dir()) / 'aistack' / 'mlflow.db'}"


def _client(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise TrackingError(
            'MLflow is not installed; run: pip install "jupyter_aistack[train]"'
        ) from error
    with _one_sentence(f"the tracking store {without_secrets(uri)} cannot be opened"):
        return MlflowClient(uri)


def _prepare_folder(uri: str) -> None:
    path = _sqlite_path(uri)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(
            f"tracking_uri: the folder {path.parent} cannot be made ({error.strerror})"
        ) from error


def _sqlite_path(uri: str) -> Path | None:
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).absolute()


def _experiment_id(client: Any, uri: str, name: str) -> str:
    """The experiment's id; it is made when there is none, also when another process
    makes it at the same moment.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        path = _sqlite_path(uri)
        # Without a place of their own, artifacts would land in a folder of the working
        # directory.
        location = None if path is None else str(path.parent / "mlartifacts")
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment: {name!r} has been deleted; restore it in MLflow or choose another name"
        )
    return str(experiment.experiment_id)


@contextlib.contextmanager
def _one_sentence(what: str) -> Iterator[None]:
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        raise TrackingError(f"{what}: {first_line(error)}") from error


@contextlib.contextmanager
def _lasting_as_rejected() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in _LASTING:
            raise RejectedByStore(first_line(error)) from error
        raise


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
