"""Notices as the using side sees them; with a real server and kernel in
tests/flows/test_reclaim.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import jupyter_aistack
from jupyter_aistack.client import notices
from jupyter_aistack.client.notices import (
    NoticeWatcher,
    forget_notice,
    notice_line,
    on_notice,
)
from jupyter_aistack.core.model.condition import ConditionKind, new_condition
from jupyter_aistack.core.wire.preparations import CONDITION
from jupyter_aistack.exceptions import LedgerUnavailable
from tests.fakes.samples import SAMPLES, lease
from tests.fakes.threads import NewThreads
from tests.fakes.waiting import wait_until


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def watcher(messages: list[str]) -> NoticeWatcher:
    return NoticeWatcher(list, messages.append)


@pytest.fixture(autouse=True)
def no_hooks_left() -> Iterator[None]:
    yield
    notices._hooks.clear()


def test_a_notice_is_told_once_in_plain_words(
    watcher: NoticeWatcher, messages: list[str]
) -> None:
    noticed = lease(kind="preempt")
    assert watcher.update([noticed])
    assert watcher.update([noticed])
    (line,) = messages
    assert line.startswith("This kernel's slice 1/4 will be preempted in ")
    assert (
        "a higher-priority request needs the capacity. Save what you need; the kernel keeps running on the CPU."
        in line
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"holder": {**SAMPLES[0]["holder"], "kind": "process"}},
            "This process's slice 1/4 will",
        ),
        (
            {"holder": {**SAMPLES[0]["holder"], "kind": "worker", "id": "w-0"}},
            "The slice 1/4 of worker w-0 will",
        ),
        (
            {"slices": [{**SAMPLES[0]["slices"][0], "kind": "cpu"}]},
            "the kernel keeps running without it",
        ),
    ],
)
def test_a_notice_says_whose_slice_it_is(change: dict[str, Any], words: str) -> None:
    assert words in notice_line(lease(kind="preempt", **change), time.time())


def test_an_idle_notice_says_how_to_keep_the_slice() -> None:
    assert "it is idle. Run a cell, or %gpu extend, to keep it." in notice_line(
        lease(kind="idle"), time.time()
    )


def test_a_notice_that_is_withdrawn_is_said_and_may_come_again(
    watcher: NoticeWatcher, messages: list[str]
) -> None:
    for kind in ("idle", "", "", "idle"):
        watcher.update([lease(kind=kind)])
    assert [line.split(" will")[0].split(": ")[0] for line in messages] == [
        "This kernel's slice 1/4",
        "This kernel's slice 1/4 stays",
        "This kernel's slice 1/4",
    ]


@pytest.mark.parametrize(
    ("kind", "message", "is_told"),
    [
        ("NotEnforced", "the process may take 20.0 GiB instead of 5.0 GiB", True),
        ("MemoryExceeded", "python 7 of a.ipynb holds 2.0 GiB of 1.0 GiB", True),
        ("MemoryPressure", "python 7 of a.ipynb holds 0.9 GiB of 1.0 GiB", True),
        ("DeviceFault", "python 7 of a.ipynb caused it", True),
        ("NotVerified", "there is no CUDA driver", False),
        ("Note", "lent until the reservation 'lesson' begins", False),
    ],
)
def test_what_is_wrong_with_a_slice_is_told_once(
    kind: str, message: str, is_told: bool, watcher: NoticeWatcher, messages: list[str]
) -> None:
    condition = new_condition(ConditionKind(kind), message, 1.0)
    troubled = lease(conditions=[CONDITION.to_dict(condition)])
    for _ in range(2):
        watcher.update([troubled])
    assert messages == (
        [f"This kernel's slice 1/4 is {condition.text}"] if is_told else []
    )
    watcher.update([lease(conditions=[])])
    watcher.update([troubled])
    assert len(messages) == 2 * is_told, "and again when it comes again"


def test_each_condition_that_comes_is_told_for_itself(
    watcher: NoticeWatcher, messages: list[str]
) -> None:
    near = new_condition(ConditionKind.MEMORY_PRESSURE, "38 of 40 GiB", 1.0)
    fault = new_condition(ConditionKind.DEVICE_FAULT, "it failed", 2.0)
    watcher.update([lease(conditions=[CONDITION.to_dict(near)])])
    both = [CONDITION.to_dict(fault), CONDITION.to_dict(near)]
    watcher.update([lease(conditions=both)])
    assert messages == [
        "This kernel's slice 1/4 is near its memory: 38 of 40 GiB",
        "This kernel's slice 1/4 is on a GPU that failed: it failed",
    ]


def test_hooks_get_the_notice_as_a_dict(watcher: NoticeWatcher) -> None:
    got: list[dict[str, Any]] = []
    assert on_notice(got.append) == got.append
    watcher.update([lease(kind="preempt")])
    (notice,) = got
    assert (notice["kind"], notice["lease_id"], notice["spec"]) == (
        "preempt",
        "l-1",
        "1/4",
    )
    assert 0 < notice["seconds"] <= 60
    forget_notice(got.append)
    watcher.update([lease("l-2", kind="preempt")])
    assert len(got) == 1


def test_a_hook_that_fails_is_shown_and_the_others_are_called(
    watcher: NoticeWatcher, messages: list[str]
) -> None:
    got: list[dict[str, Any]] = []

    @on_notice
    def save(notice: dict[str, Any]) -> None:
        raise OSError("the disk is full")

    on_notice(got.append)
    watcher.update([lease(kind="preempt")])
    assert len(got) == 1
    assert "save, called because of the notice, failed:" in messages[1]
    assert "OSError: the disk is full" in messages[1]


def test_defining_a_hook_again_replaces_it(watcher: NoticeWatcher) -> None:
    calls: list[int] = []
    for number in (1, 2):

        @on_notice
        def save(notice: dict[str, Any], number: int = number) -> None:
            calls.append(number)

    watcher.update([lease(kind="preempt")])
    assert calls == [2]


def test_in_passing_the_line_comes_at_once_and_the_functions_hold_nobody_up(
    watcher: NoticeWatcher, messages: list[str]
) -> None:
    may_go_on, saved = threading.Event(), threading.Event()

    @on_notice
    def save(notice: dict[str, Any]) -> None:
        may_go_on.wait(10)
        saved.set()

    watcher.update_in_background([lease(kind="preempt")])
    assert len(messages) == 1
    assert not saved.is_set()
    may_go_on.set()
    assert saved.wait(10)


def test_the_watcher_asks_until_nothing_is_left_and_survives_a_server_that_is_gone(
    messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "ASK_SECONDS", 0.001)
    answers = iter([[lease()], LedgerUnavailable(), [lease(kind="preempt")], []])
    called_in: list[str] = []

    def ask() -> list[dict[str, Any]]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    on_notice(lambda notice: called_in.append(threading.current_thread().name))
    watcher = NoticeWatcher(ask, messages.append)
    started = NewThreads()
    watcher.watch()
    watcher.watch()
    wait_until(lambda: not started.named("aistack-notices"))
    assert len(messages) == 1
    assert called_in == ["aistack-notices"]
    assert list(answers) == []


def test_a_lease_that_comes_while_the_last_answer_is_read_is_looked_after(
    messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "ASK_SECONDS", 0.001)
    asked: list[int] = []

    def ask() -> list[dict[str, Any]]:
        asked.append(1)
        if len(asked) == 1:
            watcher.watch()  # as another thread does just then
            return []
        return [lease(kind="preempt")] if len(asked) == 2 else []

    watcher = NoticeWatcher(ask, messages.append)
    started = NewThreads()
    watcher.watch()
    wait_until(lambda: not started.named("aistack-notices"))
    assert (len(asked), len(messages)) == (3, 1)


def test_the_hook_is_part_of_the_face() -> None:
    assert jupyter_aistack.on_notice is on_notice
