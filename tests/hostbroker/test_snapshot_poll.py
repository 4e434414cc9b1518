"""Those who follow the host, at a broker of its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.hostbroker import snapshot_poll
from jupyter_aistack.hostbroker.calls import Calls
from jupyter_aistack.testing import simulated_broker
from tests.fakes.host_broker import ALICE, BOB, LiveBroker, live_broker


def test_an_answer_is_held_back_until_there_is_something_new(host: LiveBroker) -> None:
    watcher = host.speaker()
    holder = host.speaker()
    first = watcher.ask("snapshot")
    assert first["leases"] == []
    assert {"host", "queue", "usage"} <= first.keys()

    watcher.send("snapshot", after=first["revision"], wait=30)
    lease = holder.request()
    second = watcher.hear()["result"]
    assert [each["id"] for each in second["leases"]] == [lease["id"]]
    assert second["revision"] > first["revision"]


def test_one_who_knows_the_newest_hears_so_when_the_time_is_over(
    host: LiveBroker,
) -> None:
    watcher = host.speaker()
    revision = watcher.ask("snapshot")["revision"]
    again = watcher.ask("snapshot", after=revision, wait=0.2)
    assert again["revision"] == revision


def test_a_wait_beyond_the_longest_is_refused_by_name(host: LiveBroker) -> None:
    refused = host.speaker().say("snapshot", wait=31)
    assert refused["error"]["facts"]["field"] == "wait"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become several users")
def test_each_sees_as_much_as_the_settings_allow(folder: Path) -> None:
    file = folder / "aistack_config.py"
    file.write_text("c.AIStack.show_names = False\n")
    with live_broker(folder, "--config", str(file)) as host:
        alice = host.speaker(ALICE)
        lease = alice.request()
        users = {}
        for uid in (ALICE, BOB, None):
            (seen,) = host.speaker(uid).ask("snapshot")["leases"]
            assert seen["id"] == lease["id"]
            users[uid] = seen["holder"]["user"]
        own = f"uid-{ALICE}"
        assert users == {ALICE: own, BOB: "someone", None: own}


class CountingCalls(Calls):
    """Counts how often the host is looked at."""

    looks = 0

    async def run_for(self, *args: Any, **kwargs: Any) -> Any:
        self.looks += 1
        return await super().run_for(*args, **kwargs)


def test_who_waits_looks_no_more_often_once_a_wait_was_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_poll, "FRESH_SECONDS", 0.05)
    monkeypatch.setattr(snapshot_poll, "CHANGED_SECONDS", 0.0)
    caller = Caller(user="ann", uid=os.getuid())

    async def follow() -> int:
        calls = CountingCalls(Service(simulated_broker("1xH100-80GB")))
        poll = snapshot_poll.SnapshotPoll(calls)
        first = await poll.answer({}, caller)
        await poll.answer({"after": first["revision"], "wait": 0.2}, caller)
        calls.close()
        return calls.looks

    # One to begin with, one at the start of the wait, and one per pause of 0.05 s.
    assert asyncio.run(follow()) <= 1 + 1 + 4 + 1
