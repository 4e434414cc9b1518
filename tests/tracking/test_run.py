from __future__ import annotations

import asyncio
import logging
import math
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import jupyter_aistack as aistack
from jupyter_aistack.exceptions import InvalidRequest, TrackingError
from jupyter_aistack.tracking import progress
from jupyter_aistack.tracking import run as running
from jupyter_aistack.tracking.mlflow import MLflowStore
from tests.fakes.mlflow_server import TrackingServer, tracking_server
from tests.fakes.waiting import until, wait_until

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def stored(mlflow_uri: str) -> Any:
    """Read a run back with MLflow's own client."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(mlflow_uri)


NEWS = re.compile(
    r"tracking: (importing|opening|.* entries stored after)|ledger_url: .* is a new ledger"
)


def complaints(errors: str) -> list[str]:
    """What is told on stderr, but for what is new and what a busy machine makes people
    wait for.
    """
    return [line for line in errors.splitlines() if not NEWS.match(line)]


def test_metrics_params_tags_and_status_are_in_the_store(mlflow_uri: str, stored: Any):
    with aistack.track(
        "flights",
        run_name="first",
        params={"epochs": 3},
        tags={"why": "test"},
        tracking_uri=mlflow_uri,
    ) as run:
        for step in range(1200):
            run.log(step, loss=1 / (step + 1))
        run.log(auc=0.75)
        run.log_metric("val/auc", 0.5, 7)
        run.params({"lr": 0.1})
        run.tag("note", "good")
    found = stored.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "first"
    assert found.data.params == {"epochs": "3", "lr": "0.1"}
    assert (found.data.tags["why"], found.data.tags["note"]) == ("test", "good")
    assert found.data.metrics["val/auc"] == 0.5
    assert len(stored.get_metric_history(run.run_id, "loss")) == 1200
    assert run.metrics_logged == 1202
    assert run.experiment == "flights"
    assert "mlflow ui" in run._repr_mimebundle_()["text/html"]


def test_metrics_logged_is_what_the_store_holds_even_for_equal_points_in_one_millisecond(
    mlflow_uri: str, stored: Any
):
    with aistack.track("equal", tracking_uri=mlflow_uri) as run:
        for _ in range(50):
            run.log(0, loss=1.0, other=float("nan"))
    histories = [
        stored.get_metric_history(run.run_id, name) for name in ("loss", "other")
    ]
    assert [len(history) for history in histories] == [50, 50]
    assert run.metrics_logged == 100


def test_steps_count_the_calls_when_none_is_given(mlflow_uri: str, stored: Any):
    with aistack.track("steps", tracking_uri=mlflow_uri) as run:
        for value in (3.0, 2.0, 1.0):
            run.log(loss=value)
        run.log(10, loss=0.5)
        run.log(loss=0.25)
    assert [m.step for m in stored.get_metric_history(run.run_id, "loss")] == [
        0,
        1,
        2,
        10,
        11,
    ]


def test_values_that_are_not_finite_are_kept_as_the_store_can(
    mlflow_uri: str, stored: Any
):
    with aistack.track("odd", tracking_uri=mlflow_uri) as run:
        run.log(nan=math.nan, up=math.inf, down=-math.inf, huge=10**400)
    metrics = stored.get_run(run.run_id).data.metrics
    assert math.isnan(metrics["nan"])
    assert metrics["up"] == sys.float_info.max
    assert metrics["huge"] == sys.float_info.max
    assert metrics["down"] == -sys.float_info.max
    assert run.metrics_logged == 4


def test_no_call_of_the_store_is_made_by_the_thread_that_logs(
    mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
):
    callers: set[int] = set()
    write = MLflowStore.write

    def watched(self: MLflowStore, batch: Any) -> None:
        callers.add(threading.get_ident())
        write(self, batch)

    monkeypatch.setattr(MLflowStore, "write", watched)
    with aistack.track("threads", tracking_uri=mlflow_uri) as run:
        for step in range(100):
            run.log(step, loss=step)
        run.tag("a", "b")
    assert callers
    assert threading.get_ident() not in callers


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("too late\nsecond line"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_an_error_ends_the_run_with_everything_stored_and_goes_on(
    mlflow_uri: str, stored: Any, error: BaseException, status: str
):
    run = aistack.track("errors", tracking_uri=mlflow_uri)

    def work() -> None:
        with run:
            run.log(loss=1.0)
            raise error

    with pytest.raises(type(error)):
        work()
    found = stored.get_run(run.run_id)
    assert found.info.status == run.status == status
    assert found.data.metrics["loss"] == 1.0
    assert found.data.tags["aistack.error"].startswith(type(error).__name__)
    assert "second line" not in found.data.tags["aistack.error"]


def test_a_run_left_open_when_the_process_ends_is_stored_and_closed(
    mlflow_uri: str, stored: Any, tmp_path: Path
):
    script = f"""
        import jupyter_aistack as aistack
        run = aistack.track("abandoned", tracking_uri={mlflow_uri!r}).__enter__()
        for step in range(500):
            run.log(step, loss=step)
        print(run.run_id)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=True
    )
    run_id = done.stdout.strip()
    assert stored.get_run(run_id).info.status == "KILLED"
    assert len(stored.get_metric_history(run_id, "loss")) == 500


def run_script(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A script that tracks, to its end."""
    code = "import os, signal, sys\nimport jupyter_aistack as aistack\n"
    return subprocess.run(
        [sys.executable, "-c", code + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=200,
    )


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_process_that_is_told_to_end_stores_what_it_has_logged(
    mlflow_uri: str, stored: Any, tmp_path: Path, name: str
):
    done = run_script(
        f"""
        with aistack.track("told", tracking_uri={mlflow_uri!r}) as run:
            print(run.run_id, flush=True)
            for step in range(3000):
                run.log(step, loss=step)
            os.kill(os.getpid(), signal.{name})
            signal.pause()
        """,
        tmp_path,
    )
    assert done.returncode == -signal.Signals[name]
    run_id = done.stdout.strip()
    assert stored.get_run(run_id).info.status == "KILLED"
    assert len(stored.get_metric_history(run_id, "loss")) == 3000
    assert complaints(done.stderr) == []


def test_a_process_that_is_told_to_end_says_what_it_could_not_store(tmp_path: Path):
    with tracking_server() as server:
        done = run_script(
            f"""
            from jupyter_aistack.tracking import run as running
            running.TERMINATED_SECONDS = 0.3
            with aistack.track("told", tracking_uri={server.uri!r}) as run:
                run.flush()
                os.environ["http_proxy"] = "http://127.0.0.1:9"
                for step in range(129):
                    run.log(step, loss=step)
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
            """,
            tmp_path,
        )
    assert done.returncode == -signal.SIGTERM
    assert "129 points" in done.stderr
    assert "shown as running" in done.stderr


def test_a_forked_child_leaves_the_run_to_its_parent(
    mlflow_uri: str, stored: Any, tmp_path: Path
):
    done = run_script(
        f"""
        def child(work):
            pid = os.fork()
            if pid:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            sys.excepthook = lambda *error: print(error[1], flush=True)
            work()
            sys.exit(0)

        def fail():
            raise ValueError("of the child")

        def log():
            run.log(loss=-1.0)

        def track():
            with aistack.track("own", tracking_uri={mlflow_uri!r}) as own:
                own.log(loss=-1.0)
            print(own.status, own.metrics_logged, flush=True)

        with aistack.track("forked", tracking_uri={mlflow_uri!r}) as run:
            run.log(loss=1.0)
            codes = [child(work) for work in (lambda: None, fail, log, track)]
            print(*codes, flush=True)
            run.log(loss=2.0)
        print(run.run_id)
        """,
        tmp_path,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "of the child"
    assert "this is a child forked from it" in lines[1]
    assert lines[2:4] == ["FINISHED 1", "0 1 1 0"]
    assert complaints(done.stderr) == []
    history = stored.get_metric_history(lines[4], "loss")
    assert [metric.value for metric in history] == [1.0, 2.0]
    assert stored.get_run(lines[4]).info.status == "FINISHED"


def test_a_deleted_working_folder_is_no_end_of_tracking(
    mlflow_uri: str, stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "model.txt"
    file.write_text("weights")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with aistack.track("no folder", tracking_uri=mlflow_uri) as run:
        run.log(loss=1.0)
        run.artifact(file)
    monkeypatch.chdir(tmp_path)
    assert (run.status, run.metrics_logged) == ("FINISHED", 1)
    assert [file.path for file in stored.list_artifacts(run.run_id)] == ["model.txt"]


def test_a_server_that_goes_and_comes_back_is_said_and_loses_nothing(
    caplog: pytest.LogCaptureFixture,
):
    with (
        tracking_server() as server,
        caplog.at_level(logging.WARNING, "jupyter_aistack"),
        aistack.track("outage", tracking_uri=server.uri) as run,
    ):
        run.flush()
        server.status = 503
        for step in range(100):
            run.log(step, loss=step)
        wait_until(lambda: "nothing reaches" in caplog.text)
        requests = server.requests
        wait_until(lambda: server.requests > requests)
        server.status = 200
        run.flush()
        assert run.metrics_logged == 100
    assert sorted(
        point["step"] for point in server.points if point["key"] == "loss"
    ) == [*range(100)]
    assert server.ends == ["FINISHED"]
    # On a busy machine it is said as well that the opening takes a while.
    messages = [record.getMessage() for record in caplog.records]
    lost = [text for text in messages if "nothing reaches" in text]
    back = [text for text in messages if "answers again" in text]
    assert (len(lost), len(back)) == (1, 1)
    assert messages.index(lost[0]) < messages.index(back[0])
    assert server.uri in lost[0]


def test_who_waits_for_a_server_is_told_so(monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(progress, "tell", told.append)
    with tracking_server() as server:
        notice = f"opening the tracking store {server.uri}"
        server.hangs = threading.Event()

        def answer() -> None:
            wait_until(lambda: notice in told)
            server.hangs.set()

        threading.Thread(target=answer, daemon=True).start()
        with aistack.track("slow", tracking_uri=server.uri) as run:
            run.log(loss=1.0)
    assert server.ends == ["FINISHED"]
    assert told.count(notice) == 1


async def hold_answers(server: TrackingServer) -> None:
    """Let a server answer nothing until this event loop goes on."""
    server.hangs = threading.Event()
    before = server.requests
    await until(lambda: server.requests > before)
    server.hangs.set()


async def test_an_event_loop_goes_on_while_a_run_is_opened_and_stored():
    with tracking_server() as server:
        opening = asyncio.ensure_future(hold_answers(server))
        await asyncio.sleep(0)
        async with aistack.track("x", tracking_uri=server.uri) as run:
            assert opening.done()
            run.log(loss=1.0)
            ending = asyncio.ensure_future(hold_answers(server))
            await asyncio.sleep(0)
        assert ending.done()
    assert (run.status, server.ends) == ("FINISHED", ["FINISHED"])
    assert [point["key"] for point in server.points] == ["loss"]


async def test_a_run_whose_opening_is_cancelled_is_not_left_running():
    with tracking_server() as server:
        server.hangs = threading.Event()
        run = aistack.track("x", tracking_uri=server.uri)
        entering = asyncio.ensure_future(run.__aenter__())
        await until(lambda: server.requests > 0)
        entering.cancel()
        await asyncio.sleep(0)
        server.hangs.set()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert server.ends == ["KILLED"]
    assert run.status == "NEW"


def test_a_run_that_is_refused_at_its_beginning_is_not_left_running():
    with (
        tracking_server() as server,
        pytest.raises(InvalidRequest),
        aistack.track("x", tracking_uri=server.uri, params={"n": Unprintable()}),
    ):
        pytest.fail("it has not begun")
    assert server.ends == ["KILLED"]


class Unprintable:
    """A param whose text is a mistake."""

    def __str__(self) -> str:
        raise InvalidRequest("no text", field="params")


def test_a_param_the_store_refuses_is_lost_alone(
    mlflow_uri: str, stored: Any, caplog: pytest.LogCaptureFixture
):
    run = aistack.track("refused", tracking_uri=mlflow_uri).__enter__()
    stored.log_param(run.run_id, "lr", "from elsewhere")
    for step in range(500):
        run.log(step, loss=step)
    run.params({"lr": 0.1})
    for step in range(500, 1200):
        run.log(step, loss=step)
    with pytest.raises(
        TrackingError, match=r"not stored in run \w+: 1 param \("
    ) as told:
        run.__exit__(None, None, None)
    assert told.value.facts["not_stored"] == 1
    assert len(stored.get_metric_history(run.run_id, "loss")) == 1200
    assert stored.get_run(run.run_id).info.status == "FINISHED"


def test_a_run_deleted_while_it_goes_on_is_told(mlflow_uri: str, stored: Any):
    run = aistack.track("deleted", tracking_uri=mlflow_uri).__enter__()
    run.flush()
    stored.delete_run(run.run_id)
    for step in range(300):
        run.log(step, loss=step)
    with pytest.raises(TrackingError, match=r"300 points.* \(the run is deleted\)"):
        run.__exit__(None, None, None)


def test_a_call_with_one_wrong_value_logs_nothing(mlflow_uri: str, stored: Any):
    with aistack.track("whole", tracking_uri=mlflow_uri) as run:
        with pytest.raises(InvalidRequest, match="metric auc"):
            run.log(loss=1.0, auc="high")
        with pytest.raises(InvalidRequest, match="param"):
            run.params({"lr": 0.1, "no$": 1})
        run.params({"lr": 0.2})
    found = stored.get_run(run.run_id)
    assert (found.data.metrics, found.data.params) == ({}, {"lr": "0.2"})


def test_a_store_that_fails_in_the_middle_is_told_at_the_end(
    mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(self: MLflowStore, batch: Any) -> None:
        raise ConnectionError("the disk is full")

    monkeypatch.setattr(running, "FLUSH_SECONDS", 0.3)
    run = aistack.track("outage", tracking_uri=mlflow_uri).__enter__()
    monkeypatch.setattr(MLflowStore, "write", fail)
    run.log(loss=1.0)
    with pytest.raises(TrackingError, match=r"not stored in run .*the disk is full"):
        run.__exit__(None, None, None)
    assert run.metrics_logged == 0


def test_slice_and_enforcement_are_tagged_and_the_cost_is_logged(
    mlflow_uri: str, stored: Any
):
    with (
        aistack.request("1/4", attach=False) as lease,
        aistack.track("slices", tracking_uri=mlflow_uri) as run,
    ):
        run.log(loss=1.0)
    found = stored.get_run(run.run_id)
    tags = found.data.tags
    assert tags["aistack.slice"] == "1/4"
    assert tags["aistack.lease"] == lease.id
    assert tags["aistack.enforced_by"] == "simulated"
    assert "H100" in tags["aistack.device"]
    assert tags["aistack.simulated"] == "true"
    assert tags["aistack.energy_by"] == "unknown"
    assert "aistack.energy_wh" not in found.data.metrics, (
        "what a simulated counter says is made up"
    )
    assert found.data.metrics["aistack.gpu_slice_hours"] == pytest.approx(
        run.cost.gpu_slice_hours
    )
    assert 0 < run.cost.slice_hours < 0.25
    assert run.cost.cpu_slice_hours == 0


def test_a_lease_that_came_and_went_between_two_samples_is_charged(mlflow_uri: str):
    with aistack.track("workers", tracking_uri=mlflow_uri) as run:
        aistack.request(
            "1/2", attach=False, holder={"kind": "worker", "id": "w-0"}
        ).release()
    assert run.cost.gpu_slice_hours > 0


def test_without_a_lease_nothing_is_claimed(mlflow_uri: str, stored: Any):
    with aistack.track("plain", tracking_uri=mlflow_uri) as run:
        run.log(loss=1.0)
    found = stored.get_run(run.run_id)
    assert found.data.tags["aistack.slice"] == "none"
    assert set(found.data.metrics) == {"loss"}
    assert run.metrics_logged == 1


def test_a_broken_ledger_does_not_stop_a_run(
    mlflow_uri: str, monkeypatch: pytest.MonkeyPatch, stored: Any
):
    monkeypatch.setenv("AISTACK_LEDGER", "sqlite:////dev/null/ledger.sqlite")
    with aistack.track("no-broker", tracking_uri=mlflow_uri) as run:
        run.log(loss=1.0)
    assert stored.get_run(run.run_id).data.tags["aistack.slice"] == "unknown"


def test_artifacts_and_data_are_stored_beside_the_database(
    mlflow_uri: str, stored: Any, tmp_path: Path
):
    pandas = pytest.importorskip("pandas")
    model = tmp_path / "model.txt"
    model.write_text("weights")
    with aistack.track("artifacts", tracking_uri=mlflow_uri) as run:
        run.artifact(model)
        run.data("flights", pandas.DataFrame({"delay": [1, 2, 3]}))
    found = stored.get_run(run.run_id)
    assert [file.path for file in stored.list_artifacts(run.run_id)] == ["model.txt"]
    assert "mlartifacts" in found.info.artifact_uri
    dataset = found.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == (
        "flights",
        found.data.tags["aistack.data.flights"],
    )
    assert '"num_rows": 3' in dataset.profile


@pytest.mark.parametrize(
    "name", ["", "a" * 251, "lo$s", "/abs", "a//b", "../up", "a/../b", 3, ".", None]
)
def test_a_name_no_store_can_keep_is_refused_in_one_sentence(
    mlflow_uri: str, name: Any
):
    with aistack.track("names", tracking_uri=mlflow_uri) as run:
        for call in (
            lambda: run.log_metric(name, 1.0),
            lambda: run.params({name: 1}),
            lambda: run.tag(name, 1),
        ):
            with pytest.raises(InvalidRequest, match="is not a name") as caught:
                call()
            assert "\n" not in caught.value.message


@pytest.mark.parametrize("value", ["0.5", b"1", None, [1, 2], object(), 1j])
def test_a_metric_that_is_no_number_is_refused(mlflow_uri: str, value: Any):
    with aistack.track("values", tracking_uri=mlflow_uri) as run:
        with pytest.raises(InvalidRequest, match="metric loss: expected a number"):
            run.log(loss=value)
        with pytest.raises(InvalidRequest, match="step: expected a whole number"):
            run.log(0.5, loss=1.0)
    assert run.metrics_logged == 0


def test_arrays_and_tensors_without_dimensions_are_numbers(
    mlflow_uri: str, stored: Any
):
    numpy = pytest.importorskip("numpy")
    with aistack.track("arrays", tracking_uri=mlflow_uri) as run:
        run.log(numpy.int64(4), a=numpy.float32(0.5), b=numpy.array(2), c=True)
    assert stored.get_run(run.run_id).data.metrics == {"a": 0.5, "b": 2.0, "c": 1.0}


def test_a_param_cannot_change(mlflow_uri: str, stored: Any):
    with aistack.track("params", params={"lr": 0.1}, tracking_uri=mlflow_uri) as run:
        run.params({"lr": 0.1})
        with pytest.raises(InvalidRequest, match=r"param lr: is '0\.1' already"):
            run.params({"lr": 0.2})
    assert stored.get_run(run.run_id).data.params == {"lr": "0.1"}


def test_long_texts_are_cut_to_what_the_store_takes(mlflow_uri: str, stored: Any):
    with aistack.track(
        "long",
        params={"p": "x" * 9000},
        tags={"t": "y" * 9000},
        tracking_uri=mlflow_uri,
    ) as run:
        pass
    found = stored.get_run(run.run_id)
    assert len(found.data.params["p"]) == 6000
    assert len(found.data.tags["t"]) == 8000


def test_logging_outside_the_with_says_so(mlflow_uri: str):
    run = aistack.track("outside", tracking_uri=mlflow_uri)
    with pytest.raises(TrackingError, match="not open"):
        run.log(loss=1.0)
    with run:
        pass
    with pytest.raises(TrackingError, match="not open"):
        run.log(loss=1.0)


def test_a_deleted_experiment_is_named(mlflow_uri: str, stored: Any):
    stored.delete_experiment(stored.create_experiment("gone"))
    with (
        pytest.raises(TrackingError, match="'gone' has been deleted"),
        aistack.track("gone", tracking_uri=mlflow_uri),
    ):
        pass


@pytest.mark.parametrize(
    "uri", ["sqlite:////dev/null/x/mlflow.db", "nonsense://x", "sqlite:////dev/zero"]
)
def test_a_store_that_cannot_be_opened_is_one_sentence(uri: str):
    with pytest.raises(TrackingError) as caught, aistack.track("x", tracking_uri=uri):
        pass
    assert "\n" not in caught.value.message
    assert caught.value.message


def test_an_error_of_the_store_shows_no_password():
    uri = "nonsense://ann:s3cret@db/runs?password=s3cret"
    with (
        pytest.raises(TrackingError, match="nonsense://ann@db/runs") as caught,
        aistack.track("x", tracking_uri=uri),
    ):
        pass
    assert "s3cret" not in caught.value.message


def test_the_panel_of_a_run_shows_no_password(mlflow_uri: str):
    with aistack.track("x", tracking_uri=mlflow_uri) as run:
        run._begun().uri = "postgresql://ann:s3cret@db/runs?sslpassword=s3cret"
        shown = run._repr_mimebundle_()
    assert "postgresql://ann@db/runs" in shown["text/plain"]
    assert all("s3cret" not in text for text in shown.values())
