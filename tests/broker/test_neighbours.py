"""Others who use a host without its broker are seen, and said in one sentence."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.neighbours import LOOK_SECONDS, Neighbours
from jupyter_aistack.config import AIStack
from jupyter_aistack.system.users import current_user
from jupyter_aistack.testing import ManualClock, holder, simulated_broker

needs_root = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become another user"
)
STRANGER = 23977
"""A user of whom no other test has a process."""


@contextmanager
def server_of(uid: int) -> Iterator[int]:
    """A process of another user that is called like a Jupyter server; its pid."""
    command = ["jupyter-lab", "600"]
    with subprocess.Popen(
        command, executable="/bin/sleep", user=uid, group=uid, extra_groups=[]
    ) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_user_alone_is_told_nothing() -> None:
    broker = simulated_broker()
    broker.submit("1/2", holder("k", user=current_user()))
    assert Neighbours(broker, pids=lambda: [os.getpid()]).problems() == ()


@needs_root
def test_anothers_jupyter_server_is_seen() -> None:
    clock = ManualClock()
    with server_of(STRANGER) as pid:
        neighbours = Neighbours(
            simulated_broker(), clock=clock, pids=lambda: [os.getpid(), pid]
        )
        (problem,) = neighbours.problems()
    assert f"(uid-{STRANGER} runs a Jupyter server)" in problem
    assert "`jupyter aistack broker install`" in problem
    clock.advance(LOOK_SECONDS - 1)
    assert neighbours.problems() == (problem,), "it is looked once a minute"
    clock.advance(1)
    assert neighbours.problems() == ()


def test_anothers_lease_is_seen_without_a_name_where_names_are_hidden() -> None:
    broker = simulated_broker()
    broker.submit("1/2", holder("k", user="bob"))
    (problem,) = Neighbours(broker, show_names=False).problems()
    assert "(another user has a lease)" in problem


def test_who_has_chosen_to_do_without_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AISTACK_BROKER")
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    problems = []
    for broker_socket in ("auto", "off"):
        settings = AIStack(ledger_url="memory:", broker_socket=broker_socket)
        broker = settings.build_broker()
        broker.submit("1/2", holder("k", user="bob", host=broker.host))
        service = settings.build_service(broker)
        host = service.call(
            "host", {}, Caller(user=current_user(), uid=os.getuid(), pid=os.getpid())
        )
        problems.append([p for p in host["problems"] if "no host broker" in p])
        broker.close()
    assert [len(each) for each in problems] == [1, 0]
