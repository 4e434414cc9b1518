"""What the server does by itself."""

from __future__ import annotations

import asyncio

from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.testing import holder
from tests.fakes.rest_server import Ask
from tests.fakes.waiting import until


async def test_living_holder_is_renewed_and_dead_one_reaped(
    ask: Ask, context: ServerContext
) -> None:
    _, answer = await ask("POST", "leases", {"spec": "1/4"})
    broker = context.broker
    started = broker.clock()
    child = await asyncio.create_subprocess_exec("sleep", "60")
    dying = broker.submit("1/4", holder(host=broker.host, pid=child.pid)).lease_id
    child.kill()
    await child.wait()
    await until(lambda: not broker.lease(dying).is_live)
    assert broker.lease(dying).outcome.value == "abandoned"  # type: ignore[union-attr]
    broker.host_state.clock = lambda: started + 50  # under a third of its time is left
    await until(lambda: broker.lease(answer["lease"]["id"]).expires_at > started + 100)
