from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from jupyter_aistack.exceptions import TrackingError
from jupyter_aistack.tracking import writer as writing
from jupyter_aistack.tracking.store import (
    Batch,
    MetricPoint,
    RejectedByStore,
    Store,
    without_secrets,
)
from jupyter_aistack.tracking.writer import Writer


class ListStore(Store):
    """Keeps everything in lists; fails the first `failures` times; lets nothing through
    before `gate` opens.
    """

    def __init__(self, failures: int = 0, refused: str = "") -> None:
        self.run_id, self.uri = "run-1", "list:"
        self.batches: list[Batch] = []
        self.threads: set[str] = set()
        self.failures, self.refused = failures, refused
        self.gate = threading.Event()
        self.gate.set()

    def write(self, batch: Batch) -> None:
        self.threads.add(threading.current_thread().name)
        self.gate.wait(30)
        if any(point.name == self.refused for point in batch.points):
            raise RejectedByStore("bad name")
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no answer\nlong story")
        self.batches.append(batch)

    def add_file(self, path: str) -> None: ...

    def add_data(self, data: Any) -> None: ...

    def finish(self, status: str) -> None: ...

    @property
    def points(self) -> list[MetricPoint]:
        return [point for batch in self.batches for point in batch.points]


def point(step: int = 0, name: str = "loss") -> MetricPoint:
    return MetricPoint(name=name, value=float(step), timestamp_ms=step, step=step)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(writing, "FIRST_PAUSE_SECONDS", 0.01)


def test_all_points_are_stored_in_order_in_batches_a_store_takes():
    store = ListStore()
    store.gate.clear()
    writer = Writer(store)
    for step in range(2500):
        writer.point(point(step))
    store.gate.set()
    writer.flush(30)
    assert [p.step for p in store.points] == list(range(2500))
    assert max(len(batch) for batch in store.batches) <= 1000
    assert writer.points_stored == 2500
    writer.close()


def test_the_caller_never_waits_for_the_store():
    store = ListStore()
    store.gate.clear()
    writer = Writer(store)
    for step in range(5000):
        writer.point(
            point(step)
        )  # the store takes nothing yet, and the calls come back all the same
    assert writer.points_stored == 0
    store.gate.set()
    writer.flush(30)
    assert store.threads == {"aistack-tracking"}
    writer.close()


def test_a_failing_store_is_tried_again_and_reported_once(
    caplog: pytest.LogCaptureFixture,
):
    store = ListStore(failures=3)
    writer = Writer(store)
    with caplog.at_level(logging.WARNING, "jupyter_aistack"):
        writer.point(point())
        writer.flush(30)
    assert len(store.points) == 1
    assert len(caplog.records) == 1
    assert "no answer" in caplog.text
    assert "long story" not in caplog.text
    writer.close()


def test_flush_says_how_much_is_not_stored():
    store = ListStore(failures=10**9)
    writer = Writer(store)
    for step in range(7):
        writer.point(point(step))
    with pytest.raises(
        TrackingError, match=r"not stored in run run-1: 7 entries \(no answer\)"
    ) as caught:
        writer.flush(0.2)
    assert caught.value.facts["not_stored"] == 7
    writer.close()


def test_flush_of_a_store_that_hangs_ends_in_time():
    store = ListStore()
    store.gate.clear()
    writer = Writer(store)
    writer.point(point())
    with pytest.raises(TrackingError, match="did not answer"):
        writer.flush(0.1)
    store.gate.set()
    writer.close()


def test_what_is_refused_for_good_does_not_hold_up_the_rest():
    store = ListStore(refused="bad")
    writer = Writer(store)
    writer.point(point(name="bad"))
    with pytest.raises(TrackingError, match="1 entry"):
        writer.flush(30)
    writer.point(point(name="good"))
    with pytest.raises(TrackingError, match=r"1 entry \(bad name\)"):
        writer.flush(30)
    assert [p.name for p in store.points] == ["good"]
    writer.close()


def test_a_batch_holds_at_most_a_hundred_tags_and_each_name_once():
    store = ListStore()
    store.gate.clear()
    writer = Writer(store)
    writer.point(point())
    for number in range(150):
        writer.tag(f"t{number}", "1")
    writer.tag("t149", "2")
    store.gate.set()
    writer.flush(30)
    assert max(len(batch.tags) for batch in store.batches) <= 100
    assert store.batches[-1].tags == {"t149": "2"}
    writer.close()


def test_jobs_run_in_their_turn_in_the_writers_thread():
    store = ListStore()
    writer = Writer(store)
    seen: list[tuple[int, str]] = []
    writer.point(point())
    writer.job(
        lambda: seen.append((len(store.points), threading.current_thread().name))
    )
    writer.point(point(1))
    writer.flush(30)
    assert seen == [(1, "aistack-tracking")]
    assert len(store.points) == 2
    writer.close()


def test_a_warning_shows_no_password(caplog: pytest.LogCaptureFixture):
    store = ListStore(refused="loss")
    store.uri = "postgresql://ann:pa@s3cret@db/runs?password=s3cret"
    writer = Writer(store)
    with caplog.at_level(logging.WARNING, "jupyter_aistack"):
        writer.point(point())
        with pytest.raises(TrackingError):
            writer.flush(30)
    assert "postgresql://ann@db/runs" in caplog.text
    assert "s3cret" not in caplog.text
    writer.close()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("postgresql://ann:pw@db:5432/runs", "postgresql://ann@db:5432/runs"),
        ("https://:pw@tracking/api?token=pw", "https://@tracking/api"),
        (
            "no answer (http://u:pw@h/x?k=pw) from 'sqlite:////a/b?k=pw'",
            "no answer (http://u@h/x) from 'sqlite:////a/b'",
        ),
        ("sqlite:////srv/my@place/mlflow.db", "sqlite:////srv/my@place/mlflow.db"),
        (
            "at 12:30: mail a@b, is it http://h:80/x",
            "at 12:30: mail a@b, is it http://h:80/x",
        ),
    ],
)
def test_what_is_shown_of_an_address_has_no_secret(said: str, shown: str):
    assert without_secrets(said) == shown
