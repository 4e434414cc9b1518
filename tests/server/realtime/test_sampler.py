"""The one thread that looks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jupyter_aistack.exceptions import AIStackError, DeviceLost
from jupyter_aistack.server.realtime.sampler import Sample, Sampler
from tests.fakes.threads import NewThreads
from tests.fakes.waiting import wait_until

log = logging.getLogger("test")
EMPTY: dict[str, Any] = {"leases": [], "queue": [], "usage": {}}
WAIT = 5.0


class Host:
    """Something to look at, which counts the looks."""

    def __init__(self) -> None:
        self.picture: dict[str, Any] = dict(EMPTY)
        self.looks = 0
        self.error: Exception | None = None
        self.looked = threading.Semaphore(0)

    def __call__(self) -> dict[str, Any]:
        self.looks += 1
        self.looked.release()
        if self.error is not None:
            raise self.error
        return dict(self.picture)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def sampler(host: Host) -> Iterator[Sampler]:
    sampler = Sampler(host, log)
    yield sampler
    sampler.stop()


@pytest.fixture
def started() -> NewThreads:
    return NewThreads()


def test_nobody_looks_before_someone_wants_to_know(
    sampler: Sampler, host: Host, started: NewThreads
) -> None:
    assert (sampler.latest, host.looks) == (None, 0)
    assert started.named("aistack-sampler") == []


def test_sleeps_when_nobody_watches_and_nothing_is_leased(sampler: Sampler) -> None:
    sampler.sample()
    assert sampler._pause() is None


def test_looks_now_and_then_while_something_is_leased(
    sampler: Sampler, host: Host
) -> None:
    host.picture["leases"] = [{"id": "l-1"}]
    sampler.sample()
    assert sampler._pause() == 5.0


def test_many_watchers_cost_one_look_per_tick(sampler: Sampler, host: Host) -> None:
    seen = threading.Semaphore(0)
    for _ in range(10):
        sampler.watch(lambda result: seen.release(), 60.0)
    for _ in range(10):
        assert seen.acquire(timeout=WAIT)
    assert (
        host.looks <= 10
    )  # one per arrival at most, never one per watcher and arrival
    before = host.looks
    sampler.poke()
    assert host.looked.acquire(timeout=WAIT)
    for _ in range(10):
        assert seen.acquire(timeout=WAIT)
    assert host.looks <= before + 1


def test_revision_follows_leases_and_queue_but_not_use(
    sampler: Sampler, host: Host
) -> None:
    first = sampler.sample()
    host.picture["usage"] = {"at": 1}
    assert sampler.sample().revision == first.revision
    host.picture["queue"] = [{"id": "r-1"}]
    assert sampler.sample().revision != first.revision


@pytest.mark.parametrize(
    "error", [DeviceLost("GPU 0 fell off the bus"), ZeroDivisionError()]
)
def test_error_reaches_watchers_and_looking_goes_on(
    sampler: Sampler, host: Host, error: Exception
) -> None:
    results: list[Sample | AIStackError] = []
    came = threading.Semaphore(0)
    host.error = error
    sampler.watch(lambda sample: (results.append(sample), came.release()), 60.0)  # type: ignore[func-returns-value]
    assert came.acquire(timeout=WAIT)
    assert isinstance(results[0], AIStackError)
    host.error = None
    sampler.poke()
    assert came.acquire(timeout=WAIT)
    assert isinstance(results[-1], Sample)


def test_watcher_whose_loop_has_closed_is_forgotten(
    sampler: Sampler, started: NewThreads
) -> None:
    came = threading.Event()

    def closed(result: Sample | AIStackError) -> None:
        came.set()
        raise RuntimeError("Event loop is closed")

    sampler.watch(closed, 60.0)
    assert came.wait(WAIT)
    sampler.stop()
    wait_until(lambda: not started.named("aistack-sampler"))
    assert sampler._watches == set()


def test_stopped_sampler_stays_stopped(sampler: Sampler, started: NewThreads) -> None:
    sampler.stop()
    sampler.poke()
    assert started.named("aistack-sampler") == []
