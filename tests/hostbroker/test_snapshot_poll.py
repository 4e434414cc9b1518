"""Those who follow the host, at a broker of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
