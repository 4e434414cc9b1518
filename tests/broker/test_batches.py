"""What several threads ask for at once is done at once, whoever is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from jupyter_aistack.broker.batches import Batches
from tests.fakes.waiting import wait_until

THREADS = 6


class Work:
    """Does batches, one at a time, each when it may."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.disowned: list[str] = []
        self.may_end = threading.Semaphore(0)
        self.errors: list[BaseException] = []
        self.calls = Batches(self._perform, self.disowned.append)

    def _perform(self, calls: Sequence[str]) -> None:
        self.batches.append(list(calls))
        assert self.may_end.acquire(timeout=30)
        if self.errors:
            raise self.errors.pop()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool


def begin(work: Work, threads: ThreadPoolExecutor, call: str) -> Future[None]:
    """Ask for a call in a thread of its own, and wait until it is known."""
    before = waiting(work)
    done = len(work.batches)
    future = threads.submit(work.calls.do, call)
    wait_until(lambda: len(work.batches) > done or waiting(work) > before)
    return future


def waiting(work: Work) -> int:
    return len(work.calls._waiting)


def test_what_is_asked_for_meanwhile_is_one_batch_in_the_order_it_came(
    work: Work, threads: ThreadPoolExecutor
) -> None:
    asked = [begin(work, threads, call) for call in ("a", "b", "c", "d")]
    work.may_end.release(2)
    for future in asked:
        future.result(30)
    assert work.batches == [["a"], ["b", "c", "d"]]


def test_who_asks_alone_does_it_at_once(work: Work) -> None:
    work.may_end.release(2)
    work.calls.do("a")
    work.calls.do("b")
    assert work.batches == [["a"], ["b"]]


def test_what_the_interrupted_did_for_others_is_done_by_one_of_them(
    work: Work, threads: ThreadPoolExecutor
) -> None:
    first = begin(work, threads, "a")
    others = [begin(work, threads, call) for call in ("b", "c")]
    work.may_end.release()
    first.result(30)
    wait_until(lambda: len(work.batches) == 2)
    work.errors.append(KeyboardInterrupt())
    work.may_end.release(2)
    outcomes = [type(future.exception(30)) for future in others]
    assert sorted(outcomes, key=str) == [KeyboardInterrupt, type(None)]
    done = outcomes.index(type(None))
    assert work.batches[2] == [("b", "c")[done]]


def test_who_is_interrupted_while_another_does_it_hears_no_more_of_it(
    work: Work, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    first = begin(work, threads, "a")
    with monkeypatch.context() as patched:
        patched.setattr(work.calls._changed, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            work.calls.do("b")
    work.may_end.release()
    first.result(30)
    assert work.batches == [["a"]]

    # The call of one who waits has been taken into the batch that is being done.
    second = begin(work, threads, "c")
    third = begin(work, threads, "d")
    (ticket,) = work.calls._waiting
    assert third.running()
    ticket.is_abandoned = True
    work.may_end.release(2)
    second.result(30)
    third.result(30)
    assert work.disowned == ["d"]
