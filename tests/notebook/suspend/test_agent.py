"""Orders that the kernel carries out."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from jupyter_aistack.notebook.suspend.agent import SuspendAgent
from jupyter_aistack.notebook.suspend.execution_lock import ExecutionLock
from tests.fakes.suspend_orders import orders

JSON = dict[str, Any]


def test_an_order_waits_for_the_end_of_the_cell_it_came_from() -> None:
    lock = ExecutionLock()
    lock.acquire()
    threading.Timer(0.05, lock.release).start()
    with lock.block(patience_seconds=10) as is_blocked:
        assert is_blocked


class Mail:
    """What an agent answers."""

    def __init__(self) -> None:
        self.answers: dict[str, JSON] = {}

    def __call__(self, verb: str, **payload: Any) -> JSON:
        assert verb == "done"
        self.answers[payload["order_id"]] = payload["answer"]
        return {}


def test_an_order_amid_a_cell_is_turned_down_and_nonsense_is_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jupyter_aistack.notebook.suspend.agent.PATIENCE_SECONDS", 0.0)
    lock, mail = ExecutionLock(), Mail()
    lock.acquire()
    agent = SuspendAgent(lock, mail)
    agent.execute(orders("trim"))
    assert mail.answers["trim"] == {"error": "a cell runs", "is_busy": True}
    lock.release()
    agent.execute(orders("dance"))
    assert mail.answers["dance"] == {"error": "KeyError: 'dance'"}


def test_an_agent_ends_with_the_residence() -> None:
    agent = SuspendAgent(ExecutionLock(), Mail())
    agent.lease_id = "l-1"
    agent.execute({"residence": None, "orders": []})
    assert agent.lease_id == ""
    agent.observe({"id": "l-2", "residence": None})
    assert agent.lease_id == ""
