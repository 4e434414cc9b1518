"""Reservations over REST, on a real server: made by admins, seen by all, kept when
their time comes.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from traitlets.config import Config

from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.system.users import current_user
from tests.fakes.rest_server import Ask
from tests.fakes.waiting import until


@pytest.fixture
def admins() -> list[str]:
    return [current_user()]


@pytest.fixture
def jp_server_config(jp_server_config: Config, admins: list[str]) -> Config:
    queues = {"class": {"members": ["@no-such-group", "prof"]}}
    jp_server_config.merge(Config({"AIStack": {"admins": admins, "queues": queues}}))
    return jp_server_config


def wish(**change: Any) -> dict[str, Any]:
    now = time.time()
    return {
        "name": "deep learning class", "spec": "1/8", "count": 6, "queue": "class",
        "starts_at": now + 3600, "ends_at": now + 10800, **change,
    }  # fmt: skip


async def test_admin_reserves_and_everybody_sees_it(ask: Ask) -> None:
    status, made = await ask("POST", "reservations", wish(weekly=True))
    assert status == 201
    assert (made["created_by"], made["is_weekly"], made["is_running"]) == (
        current_user(),
        True,
        False,
    )
    assert (await ask("GET", "reservations"))[1] == {"reservations": [made]}
    assert (await ask("GET", "host"))[1]["reservations"] == [made]
    status, gone = await ask("DELETE", f"reservations/{made['id']}")
    assert (status, gone["id"]) == (200, made["id"])
    assert (await ask("DELETE", f"reservations/{made['id']}"))[0] == 404
    assert (await ask("GET", "reservations"))[1] == {"reservations": []}


@pytest.mark.parametrize("admins", [[], ["somebody-else", "@no-such-group"]])
async def test_who_is_no_admin_is_refused_in_one_sentence(
    ask: Ask, context: ServerContext
) -> None:
    status, error = await ask("POST", "reservations", wish())
    assert (status, error["code"]) == (403, "PermissionDenied")
    assert "reserve is for managers of its queue and admins only" in error["message"]
    assert "AIStack.admins" in error["message"]
    assert (await ask("DELETE", "reservations/v-1"))[0] == 403
    assert context.broker.reservations() == ()


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"count": 0}, 400, "count: "),
        ({"ends_at": 1.0}, 400, "ends_at: "),
        ({"spec": "a lot"}, 400, "spec: "),
        ({"queue": "nowhere"}, 404, "queue: "),
        ({"who": "me"}, 400, "who"),
        ({"count": 9}, 409, "count: 9 slices of 1/8 do not fit this host; 8 do"),
    ],
)
async def test_reservation_that_makes_no_sense_names_the_field(
    ask: Ask, context: ServerContext, change: dict[str, Any], status: int, words: str
) -> None:
    answered, error = await ask("POST", "reservations", wish(**change))
    assert answered == status
    assert words in error["message"]
    assert context.broker.reservations() == ()


async def test_running_reservation_keeps_its_room_from_others(ask: Ask) -> None:
    now = time.time()
    status, made = await ask(
        "POST", "reservations", wish(starts_at=now - 60, ends_at=now + 3600)
    )
    assert (status, made["is_running"]) == (201, True)
    assert (await ask("POST", "leases", {"spec": "1/4"}))[0] == 201, (
        "two eighths are nobody's"
    )
    status, waiting = await ask("POST", "leases", {"spec": "1/4"})
    assert status == 202
    assert "the reservation 'deep learning class'" in waiting["request"]["reason"]
    await ask("DELETE", f"reservations/{made['id']}")
    assert (await ask("GET", "queue"))[1] == {"queue": []}


async def test_new_reservation_reaches_those_who_watch(
    ask: Ask, jp_ws_fetch: Any
) -> None:
    socket = await jp_ws_fetch("aistack", "api", "v1", "stream")
    _, made = await ask("POST", "reservations", wish())
    frames: list[dict[str, Any]] = []
    while not frames or [each["id"] for each in frames[-1]["host"]["reservations"]] != [
        made["id"]
    ]:
        await until(lambda: True)
        frames.append(json.loads(await socket.read_message()))
        assert len(frames) < 50
    socket.close()
