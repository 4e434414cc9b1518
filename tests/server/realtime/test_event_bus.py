"""Events of leases on Jupyter's bus."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.server.realtime.event_bus import (
    SCHEMA_ID,
    EventBus,
    last_sequence,
)
from jupyter_aistack.testing import holder, simulated_broker
from tests.fakes.rest_server import Ask
from tests.fakes.waiting import until


async def test_lease_events_reach_the_bus_with_opaque_ids_only(
    ask: Ask, server: Any
) -> None:
    heard: list[dict[str, Any]] = []

    async def listen(logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        heard.append(data)

    server.event_logger.add_listener(schema_id=SCHEMA_ID, listener=listen)
    _, answer = await ask("POST", "leases", {"spec": "1/4"})
    await ask("DELETE", f"leases/{answer['lease']['id']}")
    await until(lambda: "LeaseReleased" in {event["kind"] for event in heard})
    granted = next(event for event in heard if event["kind"] == "LeaseGranted")
    assert {
        key: value for key, value in granted.items() if not key.startswith("__")
    } == {
        "kind": "LeaseGranted",
        "lease_id": answer["lease"]["id"],
        "request_id": answer["request"]["id"],
    }
    assert len(heard) == len(
        {(event["kind"], event["lease_id"], event["request_id"]) for event in heard}
    )


async def test_an_event_of_a_device_names_it(ask: Ask, server: Any) -> None:
    heard: list[dict[str, Any]] = []

    async def listen(logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        heard.append(data)

    server.event_logger.add_listener(schema_id=SCHEMA_ID, listener=listen)
    sick = Event(kind=EventKind.DEVICE_FAULTED, at=1.0, device_id="GPU-0")
    EventBus(server.event_logger).emit((sick,))
    await until(lambda: heard)
    assert (heard[0]["kind"], heard[0]["device_id"]) == ("DeviceFaulted", "GPU-0")


async def test_events_reach_a_browsers_subscription(ask: Ask, jp_ws_fetch: Any) -> None:
    socket = await jp_ws_fetch("api", "events", "subscribe")
    await ask("POST", "leases", {"spec": "1/4"})
    async with asyncio.timeout(10):
        while (heard := json.loads(await socket.read_message()))[
            "schema_id"
        ] != SCHEMA_ID:
            pass
    assert heard["kind"] in ("RequestQueued", "LeaseGranted")
    socket.close()


def test_schema_lists_every_kind_of_event() -> None:
    import yaml

    from jupyter_aistack.server.realtime.event_bus import SCHEMA_PATH

    schema = yaml.safe_load(SCHEMA_PATH.read_text())
    assert schema["$id"] == SCHEMA_ID
    assert schema["properties"]["kind"]["enum"] == [kind.value for kind in EventKind]


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 40])
def test_end_of_the_history_is_found(number: int) -> None:
    broker = simulated_broker()
    while len(broker.events()) < number:
        broker.submit("1/64", holder(f"kernel-{len(broker.events())}"))
    assert last_sequence(broker) == len(broker.events())
