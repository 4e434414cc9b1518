"""Orders for agents: held questions, answers, and agents that are not there any
more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.core.model.policy import Policy, Queue, SuspendPolicy
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.server.rpc import agent_mailbox as module
from jupyter_aistack.server.rpc.agent_mailbox import AgentMailbox
from jupyter_aistack.testing import holder, simulated_broker


class Desk:
    """A context with one lease that may be parked, and the agents of its kernels."""

    def __init__(self) -> None:
        policy = Policy(queues=(Queue(name="default", suspend=True),))
        self.broker = simulated_broker(
            policy=policy, suspend=SuspendPolicy(), host_memory=lambda: 1 << 40
        )
        self.lease = self.broker.submit("1/2", holder("k")).lease_id
        self.context = ServerContext(lambda: self.broker, logging.getLogger("test"))
        self.agents = AgentMailbox(self.context)
        self.pool = ThreadPoolExecutor(2)

    def question(self, pid: int | None = None) -> asyncio.Future[Any]:
        caller = Caller(user="ann", uid=0, pid=pid or os.getpid(), kernel_id="k")
        return asyncio.ensure_future(
            self.context.call("orders", {"lease_id": self.lease}, caller)
        )

    def order(
        self, act: str = "trim", patience: float = 5.0, seconds: float = 5.0
    ) -> asyncio.Future[Any]:
        def ask() -> Any:
            return self.agents.call(
                "k", act, kinds={"cuda"}, patience=patience, seconds=seconds
            )

        return asyncio.ensure_future(
            asyncio.get_running_loop().run_in_executor(self.pool, ask)
        )

    async def done(self, order_id: str, answer: Any) -> None:
        caller = Caller(user="ann", uid=0, pid=os.getpid(), kernel_id="k")
        await self.context.call(
            "done", {"order_id": order_id, "answer": answer}, caller
        )


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.pool.shutdown()
    made.context.close()


async def test_a_question_is_held_until_there_is_an_order_and_its_answer_reaches_who_ordered(
    desk: Desk,
) -> None:
    assert await desk.order() is None, "there is no agent"
    question = desk.question()
    await asyncio.sleep(0)
    order = desk.order()
    text = await question
    assert text["residence"]["phase"] == "resident"
    assert [(each["act"], each["kinds"]) for each in text["orders"]] == [
        ("trim", ("cuda",))
    ]
    assert json.dumps(text)
    await desk.done(text["orders"][0]["id"], {"registered_bytes": 5})
    assert await order == {"registered_bytes": 5}


async def test_an_order_that_nobody_takes_is_taken_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_SECONDS", 0.0)
    monkeypatch.setattr(module, "PRESENT_SECONDS", 60.0)
    assert (await desk.question())["orders"] == []
    assert await desk.order(patience=0.0) is None
    assert (await desk.question())["orders"] == [], "it is gone"


async def test_an_agent_that_takes_an_order_and_says_nothing_is_an_error(
    desk: Desk,
) -> None:
    question = desk.question()
    await asyncio.sleep(0)
    order = desk.order(patience=0.2, seconds=0.0)
    assert len((await question)["orders"]) == 1
    assert await order == {"error": "its agent has not answered within 0 s"}


async def test_the_question_of_an_agent_that_has_ended_takes_no_order_with_it(
    desk: Desk,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE
    ) as old:
        first = desk.question(old.pid)
        await asyncio.sleep(0)
    assert not desk.agents.is_present("k")
    second = desk.question()
    await asyncio.sleep(0)
    assert desk.agents.is_present("k")
    order = desk.order()
    assert len((await second)["orders"]) == 1
    desk.agents.forget(())
    assert await order == {"error": "its kernel has ended"}
    first.cancel()


async def test_an_agent_hears_that_its_lease_is_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_SECONDS", 0.0)
    desk.broker.release(desk.lease, desk.broker.lease(desk.lease).token)
    assert await desk.question() == {"residence": None, "orders": []}


async def test_only_kernels_get_orders(desk: Desk) -> None:
    with pytest.raises(InvalidRequest, match="for kernels of this server only"):
        await desk.context.call(
            "orders", {"lease_id": desk.lease}, Caller(user="ann", uid=0, pid=1)
        )
    with pytest.raises(InvalidRequest, match="answer: expected an object"):
        await desk.done("o-1", [])
