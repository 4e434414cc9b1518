from __future__ import annotations

import itertools
import logging
import threading

import pytest

from jupyter_aistack.exceptions import TrackingError
from jupyter_aistack.tracking import writer as writing
from jupyter_aistack.tracking.store import Batch, Job, without_secrets
from jupyter_aistack.tracking.writer import Writer
from tests.fakes.list_store import ListStore, point
from tests.fakes.waiting import wait_until


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


def test_an_outage_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture):
    store = ListStore(failures=3)
    writer = Writer(store)
    with caplog.at_level(logging.WARNING, "jupyter_aistack"):
        writer.point(point())
        writer.flush(30)
    assert len(store.points) == 1
    down, up = (record.getMessage() for record in caplog.records)
    assert "nothing reaches list: (no answer)" in down
    assert "list: answers again" in up
    assert "long story" not in caplog.text
    store.failures = 1
    with caplog.at_level(logging.WARNING, "jupyter_aistack"):
        writer.point(point(1))
        writer.flush(30)
    assert len(caplog.records) == 4
    writer.close()


def test_a_write_that_does_not_end_is_said_while_logging_goes_on(
    caplog: pytest.LogCaptureFixture,
):
    store = ListStore()
    store.gate.clear()
    seconds = [0.0]
    writer = Writer(store, clock=lambda: seconds[0])
    writer.point(point())
    wait_until(lambda: store.threads)
    seconds[0] = 31.0
    with caplog.at_level(logging.WARNING, "jupyter_aistack"):
        writer.point(point(1))
        writer.point(point(2))
        assert len(caplog.records) == 1
        store.gate.set()
        writer.flush(30)
    assert "a write has taken 30 s" in caplog.text
    assert "answers again" in caplog.text
    writer.close()


def test_flush_says_how_much_is_not_stored():
    store = ListStore(failures=10**9)
    writer = Writer(store)
    for step in range(7):
        writer.point(point(step))
    writer.tag("a", "b")
    with pytest.raises(
        TrackingError, match=r"not stored in run run-1: 7 points, 1 tag \(no answer\)"
    ) as caught:
        writer.flush(0.2)
    assert caught.value.facts["not_stored"] == 8
    assert caught.value.facts["points_not_stored"] == 7
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


class SlowStore(ListStore):
    """Takes a batch each time it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = threading.Semaphore(0)

    def write(self, batch: Batch) -> None:
        self.allowed.acquire()
        super().write(batch)


def test_flush_waits_as_long_as_the_store_moves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.01)
    store = SlowStore()
    writer = Writer(store)
    for step in range(20_000):
        writer.point(point(step))
    seen: list[tuple[int, int]] = []

    def look(done: int, total: int) -> None:
        """A batch is taken every third look: the patience is for five."""
        seen.append((done, total))
        if len(seen) % 3 == 0 and writer.waiting:
            before = writer.waiting
            store.allowed.release()
            wait_until(lambda: writer.waiting < before)

    writer.flush(0.05, look)
    assert len(store.points) == 20_000
    assert len(seen) > 50
    assert {total for _, total in seen} == {20_000}
    writer.close()


def test_a_process_that_was_stopped_has_not_waited(monkeypatch: pytest.MonkeyPatch):
    """Every look at the clock finds it a thousand seconds on."""
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.01)
    clock = itertools.count(0, 1000)
    store = SlowStore()
    writer = Writer(store, clock=lambda: float(next(clock)))
    writer.point(point())
    looks = itertools.count(1)

    def look(done: int, total: int) -> None:
        if next(looks) == 50:
            store.allowed.release()
            wait_until(lambda: not writer.waiting)

    writer.flush(1.0, look)
    assert len(store.points) == 1
    writer.close()


def test_what_is_refused_for_good_does_not_hold_up_the_rest():
    store = ListStore(refuses=lambda point: point.name == "bad")
    writer = Writer(store)
    writer.point(point(name="bad"))
    with pytest.raises(TrackingError, match="1 point "):
        writer.flush(30)
    writer.point(point(name="good"))
    with pytest.raises(TrackingError, match=r"1 point \(bad name\)"):
        writer.flush(30)
    assert [p.name for p in store.points] == ["good"]
    writer.close()


@pytest.mark.parametrize(
    "bad", [{0}, {417}, {2499}, {3, 4, 1500}, set(range(0, 50, 7))]
)
def test_only_the_refused_entries_of_a_batch_are_lost(
    bad: set[int], caplog: pytest.LogCaptureFixture
):
    store = ListStore(refuses=lambda point: point.step in bad)
    store.gate.clear()
    writer = Writer(store)
    for step in range(2500):
        writer.point(point(step))
    store.gate.set()
    with (
        caplog.at_level(logging.WARNING, "jupyter_aistack"),
        pytest.raises(TrackingError, match="bad name") as caught,
    ):
        writer.flush(30)
    assert [p.step for p in store.points] == [n for n in range(2500) if n not in bad]
    assert caught.value.facts["points_not_stored"] == len(bad)
    assert writer.points_stored == 2500 - len(bad)
    assert len(caplog.records) == 1
    assert f"metric loss at step {min(bad)}" in caplog.text
    # A search by halves, and back to full batches.
    assert store.writes < 30 * (len(bad) + 1)
    writer.close()


def test_a_run_that_was_deleted_is_not_searched_for_what_is_refused(
    caplog: pytest.LogCaptureFixture,
):
    store = ListStore()
    store.gate.clear()
    store.is_deleted = True
    writer = Writer(store)
    for step in range(5000):
        writer.point(point(step))
    store.gate.set()
    with (
        caplog.at_level(logging.WARNING, "jupyter_aistack"),
        pytest.raises(TrackingError, match=r"5000 points \(the run is deleted\)"),
    ):
        writer.flush(30)
    assert store.writes == 1
    assert "takes nothing more for run run-1" in caplog.text
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
        Job(
            call=lambda: seen.append(
                (len(store.points), threading.current_thread().name)
            )
        )
    )
    writer.point(point(1))
    writer.flush(30)
    assert seen == [(1, "aistack-tracking")]
    assert len(store.points) == 2
    writer.close()


def test_a_long_upload_is_given_the_time_it_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.01)
    writer = Writer(ListStore())
    is_up = threading.Event()
    looks = itertools.count(1)
    writer.job(Job(call=lambda: assert_set(is_up), patience_seconds=lambda: 3600.0))

    def look(done: int, total: int) -> None:
        if next(looks) == 30:  # ten times the patience for what has no size
            is_up.set()

    writer.flush(0.03, look)
    assert not writer.waiting
    writer.close()


def assert_set(event: threading.Event) -> None:
    assert event.wait(30)


def test_a_warning_shows_no_password(caplog: pytest.LogCaptureFixture):
    store = ListStore(refuses=lambda point: True)
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
