"""Registered objects move as one when an agent is told to."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import jupyter_aistack as aistack
from jupyter_aistack.client.offload import registry
from jupyter_aistack.notebook.suspend.agent import SuspendAgent
from jupyter_aistack.notebook.suspend.execution_lock import ExecutionLock
from tests.fakes.shells import new_shell

torch = pytest.importorskip("torch")
JSON = dict[str, Any]


class Mail:
    """What an agent answers."""

    def __init__(self) -> None:
        self.answers: dict[str, JSON] = {}

    def __call__(self, verb: str, **payload: Any) -> JSON:
        assert verb == "done"
        self.answers[payload["order_id"]] = payload["answer"]
        return {}


def orders(*acts: str) -> JSON:
    results = [{"id": act, "act": act, "kinds": ["cpu"]} for act in acts]
    return {"residence": {"phase": "parking", "note": ""}, "orders": results}


def test_registered_objects_go_out_and_come_back_on_order() -> None:
    gc.collect()
    tensor = torch.arange(1024, dtype=torch.int64)
    offload, mail = aistack.offloadable(tensor, device="cpu"), Mail()
    shared = aistack.offloadable([tensor], device="cpu")
    agent = SuspendAgent(ExecutionLock(), mail)
    assert registry.registered_bytes({"cpu"}) == 8192, (
        "what two registrations share counts once"
    )
    agent.execute(orders("report", "out"))
    assert mail.answers["report"]["registered_bytes"] == 8192
    assert mail.answers["out"]["size_bytes"] >= 8192
    assert offload.is_suspended
    assert registry.is_out()
    agent.execute(orders("in"))
    assert not offload.is_suspended
    assert not shared.is_suspended
    assert torch.equal(tensor, torch.arange(1024))


def test_what_its_user_has_moved_out_stays_out() -> None:

    offload = aistack.offloadable(torch.ones(16), device="cpu")
    offload.suspend()
    SuspendAgent(ExecutionLock(), Mail()).execute(orders("out", "in"))
    assert offload.is_suspended


def test_what_is_out_though_all_is_said_to_be_here_is_brought_in_before_the_cell() -> (
    None
):

    from jupyter_aistack.notebook.suspend.resume_hooks import ResumeHooks

    shell = new_shell()
    hooks = ResumeHooks(
        shell, lambda verb, **payload: {"residence": {"phase": "resident"}, "ahead": 0}
    )
    hooks.register()
    hooks.agent.lease_id = "l-1"
    shell.user_ns["offload"] = offload = aistack.offloadable(
        torch.ones(16), device="cpu"
    )
    registry.move_out({"cpu"})
    assert offload.is_suspended
    shell.run_cell("was_out = offload.is_suspended")
    assert shell.user_ns["was_out"] is False


def test_where_one_cannot_go_none_goes() -> None:
    first = aistack.offloadable(torch.ones(16), device="cpu")
    other = aistack.offloadable(torch.ones(4, 4).to_sparse(), device="cpu")
    mail = Mail()
    SuspendAgent(ExecutionLock(), mail).execute(orders("out"))
    assert "sparse" in mail.answers["out"]["error"]
    assert not first.is_suspended
    assert not other.is_suspended
    assert not registry.is_out()
