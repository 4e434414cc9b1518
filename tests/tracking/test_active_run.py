"""MLflow's own active run, while a run of ours is open."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jupyter_aistack as aistack
from jupyter_aistack.tracking.active_run import ActiveRun, default_uri

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def _mlflow_as_new() -> Iterator[None]:
    """No store is set in MLflow before and after a test."""
    variable = "MLFLOW_TRACKING_URI"
    mlflow.set_tracking_uri(None)
    os.environ.pop(variable, None)
    yield
    mlflow.set_tracking_uri(None)
    os.environ.pop(variable, None)


def test_what_mlflow_logs_inside_the_with_is_in_the_run(
    mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with aistack.track("direct", tracking_uri=mlflow_uri) as run:
        active = mlflow.active_run()
        mlflow.log_metric("theirs", 2.0)
        run.log(ours=1.0)
    assert active.info.run_id == run.run_id
    assert mlflow.active_run() is None
    logged = mlflow.MlflowClient(mlflow_uri).get_run(run.run_id)
    assert logged.data.metrics == {"theirs": 2.0, "ours": 1.0}
    assert logged.info.status == "FINISHED"
    assert not (tmp_path / "mlflow.db").exists()


def test_autolog_adds_to_the_run_and_begins_none_of_its_own(
    mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pytest.importorskip("sklearn.linear_model")
    monkeypatch.chdir(tmp_path)
    client = mlflow.MlflowClient(mlflow_uri)
    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        with aistack.track("auto", params={"mine": 1}, tracking_uri=mlflow_uri) as run:
            models.LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 3.0])
    finally:
        mlflow.sklearn.autolog(disable=True, silent=True)
    logged = client.get_run(run.run_id)
    assert logged.data.params["mine"] == "1"
    assert logged.data.params["fit_intercept"] == "True"
    assert logged.data.metrics["training_r2_score"] == pytest.approx(1.0)
    assert logged.info.status == "FINISHED"
    assert len(client.search_runs([logged.info.experiment_id])) == 1
    assert not (tmp_path / "mlflow.db").exists()


def settings() -> tuple[str, str, str | None]:
    """Where runs of ours go, where MLflow's go, and what child processes inherit."""
    inherited = os.environ.get("MLFLOW_TRACKING_URI")
    return default_uri(), mlflow.get_tracking_uri(), inherited


@pytest.mark.parametrize("variable", [None, "http://from.environment"])
@pytest.mark.parametrize("chosen", [None, "http://chosen"])
def test_mlflow_is_afterwards_as_it_was(
    mlflow_uri: str, variable: str | None, chosen: str | None
) -> None:
    if chosen is not None:
        mlflow.set_tracking_uri(chosen)
    if variable is not None:
        os.environ["MLFLOW_TRACKING_URI"] = variable
    before = settings()
    with aistack.track("outer", tracking_uri=mlflow_uri):
        assert mlflow.get_tracking_uri() == mlflow_uri
        assert default_uri() == before[0]
        with aistack.track("inner", tracking_uri=mlflow_uri) as inner:
            assert mlflow.active_run().info.run_id == inner.run_id
    assert settings() == before


def test_a_store_chosen_inside_the_with_stays_chosen(mlflow_uri: str) -> None:
    with aistack.track("x", tracking_uri=mlflow_uri):
        mlflow.set_tracking_uri("http://chosen")
    assert mlflow.get_tracking_uri() == "http://chosen"


def test_mlflows_own_end_does_not_end_ours(mlflow_uri: str) -> None:
    with aistack.track("x", tracking_uri=mlflow_uri) as run:
        mlflow.end_run()
        run.log(loss=1.0)
    assert (run.status, run.metrics_logged) == ("FINISHED", 1)


def test_a_run_that_ends_in_another_thread_is_active_nowhere(mlflow_uri: str) -> None:
    run: Any = aistack.track("x", tracking_uri=mlflow_uri).__enter__()
    thread = threading.Thread(target=run.__exit__, args=(None, None, None))
    thread.start()
    thread.join(60)
    assert run.status == "FINISHED"
    assert mlflow.active_run() is None


def test_ending_twice_is_allowed(mlflow_uri: str) -> None:
    client = mlflow.MlflowClient(mlflow_uri)
    active = ActiveRun(mlflow_uri, client.create_run("0"))
    active.begin()
    active.end()
    active.end()
    assert mlflow.active_run() is None


def test_a_deleted_working_folder_leaves_the_users_own_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert default_uri() == f"sqlite:///{tmp_path / 'data' / 'aistack' / 'mlflow.db'}"


def test_the_default_store_follows_mlflow_then_the_folder_then_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    assert default_uri() == f"sqlite:///{tmp_path / 'data' / 'aistack' / 'mlflow.db'}"
    (tmp_path / "mlflow.db").touch()
    assert default_uri() == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    assert default_uri() == "http://tracking.example"
