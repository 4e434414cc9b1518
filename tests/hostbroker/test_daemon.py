"""The host broker, as users and administrators meet it: real processes, real uids."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.fakes.host_broker import ALICE, BOB, LiveBroker
from tests.fakes.waiting import wait_until

needs_root = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become several users"
)


def states(host: LiveBroker) -> dict[str, str]:
    """The state of every lease, by its id, as root sees them."""
    leases = host.speaker().ask("leases", all=True)["leases"]
    return {lease["id"]: lease["state"] for lease in leases}


@needs_root
def test_users_hold_for_themselves_and_cannot_take_what_is_anothers(
    host: LiveBroker,
) -> None:
    alice = host.speaker(ALICE)
    bob = host.speaker(BOB)
    lease = alice.request()
    assert lease["holder"]["user"] == f"uid-{ALICE}"
    assert lease["holder"]["pid"] == alice.pid

    refused = bob.say("release", lease_id=lease["id"])
    assert refused["error"]["code"] == "PermissionDenied"
    assert f"refused release to uid-{BOB} (uid {BOB}, pid {bob.pid})" in host.log
    assert states(host) == {lease["id"]: lease["state"]}
    assert alice.ask("release", lease_id=lease["id"])["state"] == "ended"


@needs_root
def test_a_server_speaks_for_its_own_user_alone(host: LiveBroker) -> None:
    server = host.speaker(ALICE)
    kernel = host.speaker(ALICE)
    stranger = host.speaker(BOB)
    caller = {"pid": kernel.pid, "kernel_id": "k-1", "kernel_pid": kernel.pid}
    answer = server.say("request", caller={**caller, "label": "a.ipynb"}, spec="1/4")
    holder = answer["result"]["lease"]["holder"]
    assert (holder["kind"], holder["id"], holder["pid"], holder["label"]) == (
        "kernel",
        "k-1",
        kernel.pid,
        "a.ipynb",
    )
    for forged in ({"pid": stranger.pid}, {"pid": os.getpid()}, {"pid": 2**22 + 5}):
        refused = server.say("mine", caller={**caller, **forged})
        assert refused["error"]["code"] == "PermissionDenied"
    # The same kernel id, said by another user, is that user's own.
    other = {"pid": stranger.pid, "kernel_id": "k-1", "kernel_pid": stranger.pid}
    assert stranger.say("mine", caller=other)["result"]["leases"] == []


@needs_root
def test_the_lease_of_a_process_that_ended_is_given_back_without_a_server(
    host: LiveBroker,
) -> None:
    alice = host.speaker(ALICE)
    lease = alice.request("1")
    alice.end()
    root = host.speaker()
    wait_until(lambda: root.ask("leases")["leases"] == [])
    assert states(host)[lease["id"]] == "ended"


def test_a_second_broker_exits_and_names_the_first(host: LiveBroker) -> None:
    first = host.process
    assert host.spawn().wait(60) == 1
    host.process = first
    assert f"process {host.pid} listens at {host.path}" in host.log
    assert host.speaker().ask("leases") == {"leases": []}


def test_it_ends_with_a_signal_and_takes_its_socket_with_it(host: LiveBroker) -> None:
    assert host.stop() == 0
    assert not host.path.exists()


def test_a_socket_that_was_taken_away_is_made_again(host: LiveBroker) -> None:
    host.path.unlink()
    wait_until(host.path.exists)
    assert host.speaker().ask("leases") == {"leases": []}
    assert host.stop() == 0
    assert not host.path.exists()


def test_a_socket_that_a_killed_broker_left_is_used_again(host: LiveBroker) -> None:
    host.kill()
    assert host.path.exists()
    host.start()
    assert host.speaker().ask("leases") == {"leases": []}


def test_the_policy_follows_the_administrators_file_and_survives_its_mistakes(
    folder: Path,
) -> None:
    from tests.fakes.host_broker import live_broker

    file = folder / "aistack_config.py"
    file.write_text("c.AIStack.cycle_seconds = 0.05\nc.AIStack.queues = {'a': {}}\n")
    with live_broker(folder, "--config", str(file)) as host:
        speaker = host.speaker()

        def queues() -> set[str]:
            return {queue["name"] for queue in speaker.ask("host")["queues"]}

        assert queues() == {"a", "default"}
        file.write_text("c.AIStack.cycle_seconds = 0.05\nc.AIStack.queues = {'b'\n")
        wait_until(lambda: f"{file}, line 2: not Python" in host.log)
        assert queues() == {"a", "default"}
        file.write_text(
            "c.AIStack.cycle_seconds = 0.05\nc.AIStack.queues = {'b': {}}\n"
        )
        wait_until(lambda: queues() == {"b", "default"})
        file.unlink()
        wait_until(lambda: f"{file} was taken away" in host.log)
        assert queues() == {"b", "default"}
        os.kill(host.pid, signal.SIGHUP)
        wait_until(lambda: f"{file}: there is no such file" in host.log)
        assert queues() == {"b", "default"}
