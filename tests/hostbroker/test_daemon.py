"""The host broker, as users and administrators meet it: real processes, real uids."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.system import broker_path
from tests.fakes.host_broker import ALICE, BOB, CAROL, DAVE, LiveBroker, live_broker
from tests.fakes.waiting import wait_until

needs_root = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become several users"
)


SYSTEM_USER = 23100
AS_SYSTEM_USER = (
    "setpriv",
    f"--reuid={SYSTEM_USER}",
    f"--regid={SYSTEM_USER}",
    "--clear-groups",
    # The interpreter of a test may lie in a folder of root's.
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)
FLOOD = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
connections, refused = [], 0
while refused < 100:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    try:
        connection.sendall(b'{"protocol": [1, 1], "client": "x"}\\n')
    except OSError:
        pass
    line = connection.makefile("rb").readline()
    if b"error" in line:
        refused += 1
        connection.close()
    else:
        connections.append(connection)
print(len(connections), refused, flush=True)
sys.stdin.read()
"""
"""Opens connections until it is refused, and keeps them."""
HEIR = """
import os, socket, sys
gone, tell = os.pipe()
parent = os.fork()
if parent:
    os.waitpid(parent, 0)
    print(parent, flush=True)
    os.write(tell, b"x")
    os._exit(0)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(b'{"protocol": [1, 1], "client": "x"}\\n')
answers = connection.makefile("rb")
answers.readline()
if os.fork():
    os._exit(0)
os.read(gone, 1)
connection.sendall(b'{"verb": "request", "payload": {"spec": "1/4"}}\\n')
print(answers.readline().decode(), end="", flush=True)
"""
"""Leaves its connection to its child, and ends."""
DEAF = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
connections = []
for _ in range(20):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    connection.sendall(b'{"protocol": [1, 1], "client": "x"}\\n')
    connection.setblocking(False)
    try:
        for _ in range(2000):
            connection.sendall(b'{"verb": "host"}\\n')
    except BlockingIOError:
        pass
    connections.append(connection)
print("full", flush=True)
sys.stdin.read()
"""
"""Asks on many connections as often as is taken, and reads no answer."""


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
    assert "result" in answer, answer
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


def test_nobody_grants_by_themselves_while_the_broker_is_stopped(
    host: LiveBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.stop() == 0
    monkeypatch.setenv("AISTACK_BROKER", "auto")
    monkeypatch.setattr(broker_path, "DEFAULT_PATH", str(host.path))
    assert broker_path.broker_path() == str(host.path)
    host.start()
    assert host.speaker().ask("leases") == {"leases": []}


def test_a_socket_that_was_taken_away_is_made_again(host: LiveBroker) -> None:
    host.path.unlink()
    wait_until(host.path.exists)
    assert host.speaker().ask("leases") == {"leases": []}


def test_a_socket_that_a_killed_broker_left_is_used_again(host: LiveBroker) -> None:
    host.kill()
    assert host.path.exists()
    host.start()
    assert host.speaker().ask("leases") == {"leases": []}


def test_the_policy_follows_the_administrators_file_and_survives_its_mistakes(
    folder: Path,
) -> None:
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

        def told() -> list[object]:
            events = speaker.ask("audit")["events"]
            return [(event["before"], event["after"]) for event in events]

        wait_until(lambda: told() == [({"queues": {"a": {}}}, {"queues": {"b": {}}})])
        file.unlink()
        wait_until(lambda: f"{file} was taken away" in host.log)
        assert queues() == {"b", "default"}
        os.kill(host.pid, signal.SIGHUP)
        wait_until(lambda: f"{file}: there is no such file" in host.log)
        assert queues() == {"b", "default"}


def exchange(path: Path, *lines: bytes) -> list[Any]:
    """The answers to lines on one connection."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(b"".join(line + b"\n" for line in lines))
        with connection.makefile("rb") as answers:
            return [json.loads(answers.readline()) for _ in lines]


def test_older_and_newer_clients_get_a_common_protocol_or_a_sentence(
    host: LiveBroker,
) -> None:
    leases = b'{"verb": "leases"}'
    first, second = exchange(host.path, b'{"protocol": [1, 9], "later": {}}', leases)
    assert (first["protocol"], first["pid"]) == (1, host.pid)
    assert second == {"result": {"leases": []}}

    newer = b'{"protocol": [7, 9], "client": "jupyter_aistack 9.0"}'
    for refused in exchange(host.path, newer, newer):
        assert "jupyter_aistack 9.0 speaks protocols 7 to 9" in _sentence(refused)
        assert "upgrade the broker" in _sentence(refused)
    for refused in exchange(host.path, leases, leases):
        assert "names the oldest and the newest protocol" in _sentence(refused)


def _sentence(answer: Any) -> str:
    return str(answer["error"]["message"])


def test_a_connection_does_not_outlive_the_process_that_opened_it(
    host: LiveBroker,
) -> None:
    heir = subprocess.Popen(
        [sys.executable, "-S", "-c", HEIR, str(host.path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with heir:
        assert heir.stdout is not None
        parent = heir.stdout.readline().strip()
        answer = json.loads(heir.stdout.readline())
    assert f"process {parent}, which has connected, has ended" in _sentence(answer)


def test_systemd_hears_that_it_is_ready_and_alive(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(60)
        environment = {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": "300000",
        }
        with live_broker(folder, environment=environment) as host:
            heard = {manager.recv(200).partition(b"\n")[0] for _ in range(2)}
            assert heard == {b"READY=1", b"WATCHDOG=1"}
            assert host.stop() == 0
            while (last := manager.recv(100)) == b"WATCHDOG=1":
                pass
            assert last == b"STOPPING=1"


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="no systemd"
)
def test_it_takes_over_the_socket_that_systemd_listens_on(folder: Path) -> None:
    path = folder / "broker.sock"
    (folder / "state").mkdir()
    host = LiveBroker(folder, launcher=("systemd-socket-activate", "-l", str(path)))
    process = host.spawn()
    try:
        wait_until(path.exists)  # the broker is started by the first who asks
        speaker = host.speaker()
        assert speaker.ask("leases") == {"leases": []}
        speaker.end()
        assert host.stop() == 0
        assert path.exists()  # clients go on to find it
    finally:
        process.kill()
        process.wait()


@needs_root
def test_a_system_user_says_what_it_cannot_do(folder: Path) -> None:
    with live_broker(folder, launcher=AS_SYSTEM_USER, owner=SYSTEM_USER) as host:
        assert "it is not root, and cannot suspend kernels of other users" in host.log
        alice = host.speaker(ALICE)
        lease = alice.request()
        assert lease["holder"]["user"] == f"uid-{ALICE}"
        alice.end()
        root = host.speaker()
        wait_until(lambda: root.ask("leases")["leases"] == [])


@needs_root
def test_a_user_that_floods_the_socket_harms_nobody_else(host: LiveBroker) -> None:
    flood = subprocess.Popen(
        [sys.executable, "-S", "-c", FLOOD, str(host.path), str(ALICE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with flood:
        assert flood.stdout is not None
        opened, refused = map(int, flood.stdout.readline().split())
        assert opened == 512
        assert refused > 0
        lease = host.speaker(BOB).request()
        assert lease["holder"]["user"] == f"uid-{BOB}"
        # Of the flooding user's own, no further process gets in.
        assert host.speaker(ALICE).say("leases")["error"]["code"] == "Refused"
    alice = host.speaker(ALICE)
    wait_until(lambda: "result" in alice.say("leases"))


@needs_root
def test_users_that_flood_the_socket_together_keep_nobody_out(folder: Path) -> None:
    few_files = ("prlimit", "--nofile=400:400")
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(live_broker(folder, launcher=few_files))
        bob = host.speaker(BOB)
        lease = bob.request()
        for uid in (ALICE, CAROL, DAVE):
            flood = subprocess.Popen(
                [sys.executable, "-S", "-c", FLOOD, str(host.path), str(uid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(flood)
            assert flood.stdout is not None
            assert int(flood.stdout.readline().split()[0]) < 400
            assert bob.ask("leases")["leases"][0]["id"] == lease["id"]
        assert "Too many open files" not in host.log


@needs_root
def test_a_user_that_asks_without_reading_delays_nobody_else(host: LiveBroker) -> None:
    deaf = subprocess.Popen(
        [sys.executable, "-S", "-c", DEAF, str(host.path), str(ALICE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with deaf:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == "full\n"
        lease = host.speaker(BOB).request()
        assert lease["holder"]["user"] == f"uid-{BOB}"


@needs_root
def test_a_broker_of_another_user_cannot_take_the_place(host: LiveBroker) -> None:
    other = LiveBroker(host.folder, launcher=AS_SYSTEM_USER)
    assert other.spawn().wait(60) == 1
    assert f"process {host.pid} listens at {host.path}" in host.log
    assert host.speaker().ask("leases") == {"leases": []}
    assert host.stop() == 0
    assert other.spawn().wait(60) == 1
    assert "broker.sock.lock cannot be written: Permission denied" in host.log
