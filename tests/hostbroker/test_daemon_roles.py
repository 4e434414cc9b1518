"""Every verb in the hands of every role, over a host broker's socket and on the command
line: allowed or refused as the table says, by users of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.core.model.roles import NAMING_VERBS, REACHES, Role
from tests.fakes.host_broker import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    LiveBroker,
    Speaker,
    live_broker,
)
from tests.fakes.other_users import as_user, why_not
from tests.fakes.role_walk import (
    MANAGED,
    OF_TRANSPORTS,
    OTHER,
    QUEUES,
    Target,
    calls,
    harmless,
    is_refused,
    sees_name,
    wish,
)

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "can be done")
EVE = 23005
UIDS = {Role.USER: ALICE, Role.MANAGER: BOB, Role.OPERATOR: CAROL, Role.ADMIN: DAVE}
SETTINGS = f"""
c.AIStack.show_names = False
c.AIStack.queues = {QUEUES!r}
c.AIStack.managers = {{{MANAGED!r}: ["uid-{BOB}"]}}
c.AIStack.operators = ["uid-{CAROL}"]
c.AIStack.admins = ["uid-{DAVE}"]
"""
TYPE_IN = """
import contextlib, io, json, sys
from jupyter_aistack.cli import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
"""Runs commands as ``jupyter aistack`` does, one after another."""


@dataclass
class House:
    """A host broker, and what a user has there in both queues, once for each role."""

    broker: LiveBroker
    eve: Speaker
    admin: Speaker
    moments: Iterator[float]

    def targets(self) -> dict[tuple[Role, str], Target]:
        places = [(role, queue) for role in Role for queue in (MANAGED, OTHER)]
        leases = {
            place: self.eve.request("1/8", queue=place[1])["id"] for place in places
        }
        return {
            place: Target(
                queue=place[1],
                lease_id=leases[place],
                request_id=self.waiting(place[1]),
                reservation_id=self.reserved(place[1]),
            )
            for place in places
        }

    def waiting(self, queue: str) -> str:
        answer = self.eve.ask("request", spec="2", queue=queue)
        assert answer["lease"] is None
        return str(answer["request"]["id"])

    def reserved(self, queue: str) -> str:
        moment = next(self.moments)
        return str(self.admin.ask("reserve", **wish(queue, moment))["id"])


@pytest.fixture
def house(folder: Path) -> Iterator[House]:
    config = folder / "aistack_config.py"
    config.write_text(SETTINGS)
    tomorrow = time.time() + 86400.0
    moments = (tomorrow + 600.0 * number for number in range(1000))
    with live_broker(folder, "--config", str(config)) as broker:
        yield House(broker, broker.speaker(EVE), broker.speaker(DAVE), moments)


def refused(answer: dict[str, Any]) -> bool:
    return bool(answer.get("error", {}).get("code") == "PermissionDenied")


def test_every_verb_is_walked(house: House) -> None:
    target = Target(queue=MANAGED, lease_id="l", request_id="r", reservation_id="v")
    walked = set(calls(target, 1, 0.0)) | NAMING_VERBS | OF_TRANSPORTS
    assert {verb for verb in REACHES if verb not in walked} == {
        verb for verb in REACHES if verb not in walked and harmless(verb)
    }


def test_the_socket_keeps_to_the_table(house: House) -> None:
    targets = house.targets()
    expected: dict[str, int] = {}
    for (role, queue), target in targets.items():
        speaker = house.broker.speaker(UIDS[role])
        moment = next(house.moments)
        for verb, payload in calls(target, speaker.pid, moment).items():
            answer = speaker.say(verb, **payload)
            is_to_be = is_refused(verb, role, queue)
            assert refused(answer) is is_to_be, (role, queue, verb, answer)
            expected[verb] = expected.get(verb, 0) + is_to_be
        speaker.end()
    log = house.broker.log
    told = {verb: log.count(f"refused {verb} to uid-") for verb in expected}
    assert told == expected, "each is logged, and nothing else"


def test_names_are_shown_as_the_table_says(house: House) -> None:
    house.targets()
    eve = f"uid-{EVE}"
    for role, uid in UIDS.items():
        speaker = house.broker.speaker(uid)
        for verb, part in (("leases", "leases"), ("queue", "queue")):
            for item in speaker.ask(verb)[part]:
                is_named = item["holder"]["user"] == eve
                assert is_named is sees_name(verb, role, item["queue"]), (role, verb)
        hosts = json.dumps(speaker.ask("hosts"))
        assert (eve in hosts) is sees_name("hosts", role, MANAGED), role
        answer = speaker.say("report", user=eve)
        assert refused(answer) is not sees_name("report", role, MANAGED), role
        speaker.end()


def test_the_command_line_keeps_to_the_table(house: House) -> None:
    targets = house.targets()
    for role, uid in UIDS.items():
        command = as_user(uid, [sys.executable, "-c", TYPE_IN])
        environment = {
            **os.environ,
            "AISTACK_BROKER": str(house.broker.path),
            "HOME": str(house.broker.folder),
        }
        lines = []
        for queue in (MANAGED, OTHER):
            target = targets[role, queue]
            lines += typed(target, next(house.moments))
        text = "".join(json.dumps(words) + "\n" for _, _, words in lines)
        done = subprocess.run(
            command,
            input=text,
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        for (verb, queue, words), answer in zip(
            lines, map(json.loads, done.stdout.splitlines()), strict=True
        ):
            code, _, told = answer
            is_to_be = is_refused(verb, role, queue)
            assert (code == 1) is is_to_be, (role, words, answer)
            assert ("jupyter aistack: " in told) is (code != 0), (role, words, answer)


def typed(target: Target, moment: float) -> list[tuple[str, str, list[str]]]:
    """The commands by which the verbs are called, with verb and queue."""
    start = time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
    when = ["--from", start, "--for", "1min"]
    reserve = ["reserve", "a class", "--spec", "1/8", "--queue", target.queue, *when]
    commands = {
        "extend": ["extend", target.lease_id, "1min"],
        "pin": ["pin", target.lease_id],
        "suspend": ["suspend", target.lease_id],
        "resume": ["resume", target.lease_id],
        "reserve": reserve,
        "drain": ["drain", "0", "--reason", "a fan"],
        "quarantine": ["quarantine", "0"],
        "undrain": ["undrain", "0"],
        "release": ["release", target.lease_id],
        "unreserve": ["unreserve", target.reservation_id],
    }
    return [(verb, target.queue, words) for verb, words in commands.items()]
