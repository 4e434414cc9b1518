"""Opening a store: servers that do not answer, and files that are new, shared, odd or
gone.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import jupyter_aistack as aistack
from jupyter_aistack.exceptions import TrackingError
from jupyter_aistack.system.sqlite_files import sqlite_url
from jupyter_aistack.tracking import opening
from jupyter_aistack.tracking.opening import open_experiment, within
from tests.fakes.mlflow_server import TrackingServer, tracking_server
from tests.fakes.waiting import wait_until

pytest.importorskip("mlflow")
psycopg = pytest.importorskip("psycopg")


@pytest.fixture
def server() -> Iterator[TrackingServer]:
    with tracking_server() as running:
        yield running


@pytest.fixture
def short_knock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "KNOCK_SECONDS", 0.4)
    monkeypatch.setattr(opening, "KNOCK_PAUSE_SECONDS", 0.05)


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask that would let everybody read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# -- servers ---------------------------------------------------------------------------


@pytest.mark.usefixtures("short_knock")
@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg"])
def test_a_dead_server_is_one_sentence_after_a_short_knock(scheme: str) -> None:
    uri = f"{scheme}://ann:s3cret@127.0.0.1:{free_port()}/runs"
    with pytest.raises(
        TrackingError, match=r"no tracking store can be reached at .*refused"
    ) as caught:
        open_experiment(uri, "x")
    assert "s3cret" not in caught.value.message
    assert "\n" not in caught.value.message
    assert "MLFLOW_TRACKING_URI" in caught.value.message


@pytest.mark.usefixtures("short_knock")
@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg"])
def test_a_server_that_hangs_is_given_up(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/runs"
        with pytest.raises(TrackingError, match="no tracking store can be reached"):
            open_experiment(uri, "x")


def test_a_server_that_is_only_starting_is_waited_for(
    server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "KNOCK_SECONDS", 30.0)
    monkeypatch.setattr(opening, "KNOCK_PAUSE_SECONDS", 0.02)
    server.status = 503

    def recover() -> None:
        wait_until(lambda: server.requests >= 3)
        server.status = 200

    in_thread(recover)
    assert open_experiment(server.uri, "x")[1] == "7"
    assert server.requests >= 4


def test_a_name_that_takes_for_ever_to_look_up_is_given_up() -> None:
    is_over = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.1, lambda: is_over.wait(60))
    is_over.set()


def test_what_a_call_raises_comes_back_from_its_thread() -> None:
    def fail() -> None:
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        within(30, fail)
    assert within(30, lambda: 3) == 3


# -- files -----------------------------------------------------------------------------


FIRST = """
import sys
import jupyter_aistack as aistack
print("ready", flush=True)
sys.stdin.readline()
with aistack.track("same") as run:
    run.log(loss=1.0)
print(run.status, run.metrics_logged)
"""


def first_runs_at_once(folder: Path) -> None:
    """Three processes, each with the first run it knows of, all of which go well."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        for _ in range(3)
    ]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    outcomes = [run.communicate(timeout=300) for run in runs]
    assert [out for out, _ in outcomes] == ["FINISHED 1\n"] * 3, outcomes


def test_first_runs_at_once_in_a_new_home_all_go_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    first_runs_at_once(tmp_path)
    with sqlite3.connect(tmp_path / "data" / "aistack" / "mlflow.db") as database:
        statuses = database.execute("SELECT status FROM runs").fetchall()
    assert statuses == [("FINISHED",)] * 3


@pytest.mark.postgres
def test_first_runs_at_once_in_a_new_database_all_go_well(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres_server)
    first_runs_at_once(tmp_path)
    with psycopg.connect(postgres_server.replace("+psycopg", "")) as database:
        statuses = database.execute("SELECT status FROM runs").fetchall()
    assert statuses == [("FINISHED",)] * 3


@pytest.fixture(scope="module")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store made in a new folder with an odd name, by a process whose files others
    may read.
    """
    path = tmp_path_factory.mktemp("new") / "a?b #c 50%41" / "mlflow.db"
    before = os.umask(0o022)
    try:
        open_experiment(sqlite_url(path), "x")
        yield path
    finally:
        os.umask(before)


def test_a_new_store_is_its_owners_alone(new_store: Path) -> None:
    folder = new_store.parent
    modes = [mode_of(folder), mode_of(new_store), mode_of(folder / "mlartifacts")]
    assert modes == [0o700, 0o600, 0o700]


def test_a_store_is_where_its_path_says_and_nothing_else_is_made(
    new_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.txt"
    file.write_text("weights")
    with aistack.track("x", tracking_uri=sqlite_url(new_store)) as run:
        run.artifact(file)
    stored = list(new_store.parent.rglob("model.txt"))
    assert [path.read_text() for path in stored] == ["weights"]
    assert [path.name for path in new_store.parent.parent.iterdir()] == ["a?b #c 50%41"]
    beside = {path.name for path in tmp_path.iterdir() if path.suffix == ".txt"}
    assert beside == {"model.txt"}
    assert not [path for path in tmp_path.rglob("*") if "50" in path.name]


def test_a_store_that_was_removed_is_made_anew_and_written(new_store: Path) -> None:
    uri = sqlite_url(new_store)
    with aistack.track("x", tracking_uri=uri):
        pass
    new_store.unlink()
    with aistack.track("x", tracking_uri=uri) as run:
        run.log(loss=1.0)
    with sqlite3.connect(new_store) as database:
        assert database.execute("SELECT run_uuid FROM runs").fetchall() == [
            (run.run_id,)
        ]


def test_a_store_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match=r"tracking_uri: .*file/x\.db cannot be"):
        open_experiment(sqlite_url(tmp_path / "file" / "x.db"), "x")


class Races:
    """Opens that fail as when another host makes the tables at the same moment."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def __call__(self, uri: str) -> str:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("duplicate column name: step")
        return "client"


@pytest.mark.parametrize(
    ("is_new", "failures", "expected"),
    [(True, 2, "client"), (True, 9, None), (False, 1, None)],
)
def test_making_tables_beside_another_host_is_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_new: bool,
    failures: int,
    expected: str | None,
) -> None:
    monkeypatch.setattr(opening, "MAKING_PAUSES_SECONDS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(opening, "_client", Races(failures))
    monkeypatch.setattr(opening, "_connect", lambda uri, path: is_new)
    uri = sqlite_url(tmp_path / "x.db")
    if expected is None:
        with pytest.raises(RuntimeError):
            opening.open_database(uri)
    else:
        assert opening.open_database(uri) == expected


def in_thread(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("uri", ["sqlite", "postgresql://ann@db/runs"])
def test_one_at_a_time_makes_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    path = tmp_path / "x.db" if uri == "sqlite" else None
    inside = threading.Lock()
    alone: list[bool] = []

    def make() -> None:
        with opening.making(uri, path):
            is_alone = inside.acquire(blocking=False)
            alone.append(is_alone)
            os.sched_yield()
            if is_alone:
                inside.release()

    threads = [in_thread(make) for _ in range(5)]
    for thread in threads:
        thread.join(30)
    assert alone == [True] * 5


def test_a_lock_whose_holder_hangs_is_passed_over_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(opening, "FIRST_SECONDS", 0.05)
    with opening.making("x", tmp_path / "x.db"), opening.making("x", tmp_path / "y"):
        assert "waiting for another process" in capsys.readouterr().err
