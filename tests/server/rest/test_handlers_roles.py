"""Every verb in the hands of every role, over REST and the WebSocket of a real server."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from traitlets.config import Config

from jupyter_aistack.core.model.roles import Role
from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.system.users import current_user
from jupyter_aistack.testing import holder
from tests.fakes.rest_server import Ask
from tests.fakes.role_walk import (
    MANAGED,
    OTHER,
    QUEUES,
    Target,
    is_refused,
    sees_name,
    wish,
)


@pytest.fixture(params=Role)
def role(request: pytest.FixtureRequest) -> Role:
    return Role(request.param)


@pytest.fixture
def jp_server_config(jp_server_config: Config, role: Role) -> Config:
    me = [current_user()]
    settings = {
        Role.USER: {},
        Role.MANAGER: {"managers": {MANAGED: me}},
        Role.OPERATOR: {"operators": me},
        Role.ADMIN: {"admins": me},
    }
    common = {"queues": QUEUES, "show_names": False}
    jp_server_config.merge(Config({"AIStack": {**common, **settings[role]}}))
    return jp_server_config


def targets(context: ServerContext) -> list[Target]:
    """What another user has in both queues."""
    broker = context.broker
    tomorrow = time.time() + 86400.0
    taken = []
    for number, queue in enumerate((MANAGED, OTHER)):
        granted = broker.submit(
            "1/8", holder(f"k-{number}", user="eve", host=broker.host), queue=queue
        )
        booked = broker.reserve(
            **{**wish(queue, tomorrow + 600.0 * number), "count": 1}, created_by="prof"
        )
        taken.append((queue, granted.lease_id, booked.id))
    return [
        Target(
            queue=queue,
            lease_id=lease_id,
            reservation_id=reservation_id,
            request_id=broker.submit(
                "1", holder(f"w-{queue}", user="eve", host=broker.host), queue=queue
            ).id,
        )
        for queue, lease_id, reservation_id in taken
    ]


def routes(target: Target, moment: float) -> list[tuple[str, str, str, Any]]:
    """Verb, method, path and body of each call."""
    lease = f"leases/{target.lease_id}"
    return [
        ("extend", "POST", f"{lease}/extend", {"seconds": 60}),
        ("pin", "POST", f"{lease}/pin", {}),
        ("unpin", "POST", f"{lease}/unpin", {}),
        ("suspend", "POST", f"{lease}/suspend", {}),
        ("resume", "POST", f"{lease}/resume", {}),
        ("reserve", "POST", "reservations", wish(target.queue, moment)),
        ("drain", "POST", "devices/0/drain", {"reason": "a fan"}),
        ("quarantine", "POST", "devices/0/quarantine", {}),
        ("undrain", "DELETE", "devices/0/drain", None),
        ("cancel", "DELETE", f"queue/{target.request_id}", None),
        ("release", "DELETE", lease, None),
        ("unreserve", "DELETE", f"reservations/{target.reservation_id}", None),
    ]


async def test_rest_and_stream_keep_to_the_table(
    ask: Ask, context: ServerContext, jp_ws_fetch: Any, role: Role
) -> None:
    await context.ready()
    held = targets(context)
    socket = await jp_ws_fetch("aistack/api/v1/stream")
    shown = json.loads(await socket.read_message())
    socket.close()
    for part in ("leases", "queue"):
        told = (await ask("GET", part))[1][part]
        for item in (*shown[part], *told):
            is_named = item["holder"]["user"] == "eve"
            assert is_named is sees_name(part, role, item["queue"]), (part, item)
    assert role.value in shown["host"]["roles"]
    assert shown["host"]["manages"] == ([MANAGED] if role is Role.MANAGER else [])
    status, _ = await ask("GET", "report", params={"user": "eve"})
    assert (status == 403) is not sees_name("report", role, MANAGED)

    refusals = 0
    for number, target in enumerate(held):
        moment = time.time() + 2 * 86400.0 + 600.0 * number
        for verb, method, path, body in routes(target, moment):
            status, answer = await ask(method, path, body)
            is_to_be = is_refused(verb, role, target.queue)
            assert (status == 403) is is_to_be, (verb, target.queue, answer)
            refusals += is_to_be
    counted = context.service.refusals.counts
    expected = refusals + (not sees_name("report", role, MANAGED))
    assert sum(counted.values()) == expected
