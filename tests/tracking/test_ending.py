"""The end of a run: all that is queued first, and the end itself in any case."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from jupyter_aistack.exceptions import TrackingError
from jupyter_aistack.tracking import ending
from jupyter_aistack.tracking import writer as writing
from jupyter_aistack.tracking.ending import end_run, status_of
from jupyter_aistack.tracking.store import Batch, RejectedByStore
from jupyter_aistack.tracking.writer import Writer
from tests.fakes.list_store import ListStore, point


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(writing, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(ending, "LAST_SECONDS", 0.3)


def test_the_end_comes_after_all_points_and_with_its_own_moment() -> None:
    store = ListStore()
    store.gate.clear()
    writer = Writer(store)
    for step in range(3000):
        writer.point(point(step))
    before = time.time()
    threading.Timer(0.2, store.gate.set).start()
    end_run(store, writer, "FINISHED", timeout=30)
    [(status, ended_at)] = store.ends
    assert (status, len(store.points)) == ("FINISHED", 3000)
    assert before <= ended_at < before + 0.2


def test_an_end_that_fails_at_first_is_tried_again() -> None:
    store = ListStore()
    writer = Writer(store)
    store.failures = 3
    end_run(store, writer, "FINISHED", timeout=30)
    assert [status for status, _ in store.ends] == ["FINISHED"]


class BrokenForPoints(ListStore):
    """Takes no points, but the end of a run."""

    def write(self, batch: Batch) -> None:
        raise ConnectionError("the disk is full")


class HangingForPoints(ListStore):
    """Does not come back from a write, and takes the end of a run."""

    def write(self, batch: Batch) -> None:
        self.gate.clear()
        self.gate.wait(60)


@pytest.mark.parametrize("kind", [BrokenForPoints, HangingForPoints])
def test_the_end_is_told_when_points_cannot_be_stored(kind: type[ListStore]) -> None:
    store = kind()
    writer = Writer(store)
    for step in range(7):
        writer.point(point(step))
    with pytest.raises(TrackingError, match="run-1: 7 points") as caught:
        end_run(store, writer, "FAILED", timeout=0.2)
    assert [status for status, _ in store.ends] == ["FAILED"]
    assert caught.value.facts["has_end"] is True
    store.gate.set()


def test_an_end_that_could_not_be_told_is_said() -> None:
    store = ListStore(failures=10**9)
    writer = Writer(store)
    writer.point(point())
    with pytest.raises(
        TrackingError, match=r"1 point, its end, so that it is shown as running"
    ) as caught:
        end_run(store, writer, "FINISHED", timeout=0.2)
    assert (store.ends, caught.value.facts["has_end"]) == ([], False)


class RefusingTheEnd(ListStore):
    """A run that was deleted while it went on."""

    def finish(self, status: str, ended_at: float) -> None:
        raise RejectedByStore("the run is deleted")


def test_an_end_that_is_refused_is_said_and_not_waited_for() -> None:
    store = RefusingTheEnd()
    with pytest.raises(TrackingError, match=r"its end, .* \(the run is deleted\)"):
        end_run(store, Writer(store), "FINISHED", timeout=30)


def test_who_interrupts_the_wait_loses_what_is_queued_but_not_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: object, done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ending.FlushProgress, "__call__", interrupt)
    store = HangingForPoints()
    writer = Writer(store)
    writer.point(point())
    with (
        caplog.at_level(logging.WARNING, "jupyter_aistack"),
        pytest.raises(KeyboardInterrupt),
    ):
        end_run(store, writer, "FINISHED", timeout=30)
    assert [status for status, _ in store.ends] == ["FINISHED"]
    assert "not stored in run run-1: 1 point" in caplog.text
    store.gate.set()


def test_refused_points_do_not_keep_the_end_away() -> None:
    store = ListStore(refuses=lambda point: point.step == 1)
    writer = Writer(store)
    for step in range(3):
        writer.point(point(step))
    with pytest.raises(TrackingError, match=r"run-1: 1 point \(bad name\)"):
        end_run(store, writer, "FINISHED", timeout=30)
    assert [status for status, _ in store.ends] == ["FINISHED"]


def test_errors_are_failures_and_interrupts_are_not() -> None:
    ends = [status_of(error) for error in (None, ValueError(), KeyboardInterrupt())]
    assert ends == ["FINISHED", "FAILED", "KILLED"]
