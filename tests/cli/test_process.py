"""Commands whose output goes nowhere, and commands that are ended."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.cli.process import EXIT_ERROR, run_to_exit_code
from jupyter_aistack.client.client import Client
from jupyter_aistack.client.embedded import EmbeddedTransport
from jupyter_aistack.exceptions import AcquireTimeout
from jupyter_aistack.ledger.opening import open_ledger
from jupyter_aistack.testing import holder
from tests.fakes.waiting import wait_until

COMMAND = [sys.executable, "-m", "jupyter_aistack.cli"]


@pytest.fixture(autouse=True)
def simulated(own_ledger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with one GPU, and a ledger that is not new: that would be said."""
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    ledger = open_ledger(own_ledger)
    ledger.read("box", 0.0)
    ledger.close()


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *words], stderr=subprocess.PIPE, timeout=60, check=False, **options
    )


def test_a_reader_that_has_enough_ends_the_command_in_silence() -> None:
    read, write = os.pipe()
    os.close(read)
    done = run("status", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_in_a_line() -> None:
    with open("/dev/full", "wb") as full:
        done = run("status", stdout=full)
    assert done.returncode == EXIT_ERROR
    assert done.stderr.decode().splitlines() == [
        "jupyter aistack: the output cannot be written: No space left on device"
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_help_that_cannot_be_written_is_said_too() -> None:
    with open("/dev/full", "wb") as full:
        done = run("--help", stdout=full, env=buffered())
    assert done.returncode == EXIT_ERROR
    assert done.stderr.endswith(b"cannot be written: No space left on device\n")


def buffered() -> dict[str, str]:
    """The environment of people, whose Python keeps output back until it is much."""
    return {
        name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"
    }


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_command_runs_although_its_launcher_cannot_say_so() -> None:
    words = ["request", "1/4", "--", "echo", "ran"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=full,
            env=buffered(),
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, b"ran\n")


@pytest.mark.parametrize("words", [["status"], ["--version"], ["release", "l-0"]])
def test_streams_that_are_closed_are_no_fault(words: list[str]) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&-', "sh", *COMMAND, *words],
        stderr=subprocess.PIPE,
        env=buffered(),
        check=False,
    )
    assert done.returncode == (EXIT_ERROR if "release" in words else 0)
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_a_terminal_without_unicode_shows_what_it_can() -> None:
    client = Client(EmbeddedTransport())
    with client.request("1/4", attach=False, label="Übung.ipynb"):
        done = run(
            "status",
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
    client.close()
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\xdcbung.ipynb" in done.stdout


def write_around_the_client(client: Client, label: str) -> None:
    """A lease whose label nobody has looked at: the ledger is shared, and its other
    users write into it as they like.
    """
    broker = client._transport._broker  # type: ignore[attr-defined]
    mine = holder("other", host=broker.host, pid=os.getpid(), label=label)
    broker.submit("1/4", mine)


@pytest.mark.parametrize("words", [["status"], ["usage"]])
def test_labels_of_others_do_not_reach_the_terminal_as_they_are(
    words: list[str],
) -> None:
    client = Client(EmbeddedTransport())
    write_around_the_client(client, "\x1b[2J\nl-0 free\u202e")
    shown = run(*words, stdout=subprocess.PIPE).stdout
    client.close()
    assert b"\\x1b[2J\\nl-0 free\\u202e" in shown
    assert b"\x1b" not in shown


def test_a_label_is_written_out_before_it_is_kept() -> None:
    client = Client(EmbeddedTransport())
    with client.request("1/4", attach=False, label="a\x1b[2J\nb") as lease:
        assert lease.lease is not None
        assert lease.lease["holder"]["label"] == "a\\x1b[2J\\nb"
    client.close()


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


def test_a_mistake_of_ours_is_not_taken_for_lost_output() -> None:
    with pytest.raises(FileNotFoundError):
        run_to_exit_code(raising(FileNotFoundError(errno.ENOENT, "no")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_while_it_waits_leaves_no_request(
    number: signal.Signals,
) -> None:
    client = Client(EmbeddedTransport())
    with client.request("1", attach=False):
        waiting = subprocess.Popen(
            [*COMMAND, "request", "1/2", "--", "true"], stderr=subprocess.PIPE
        )
        wait_until(client.queue)
        waiting.send_signal(number)
        _, errors = waiting.communicate(timeout=30)
        assert client.queue() == []
    client.close()
    assert waiting.returncode == 128 + number
    assert b"Traceback" not in errors


SAVING = """
import signal, sys, os
def save(number, frame):
    print("saving", flush=True)
    sys.stdin.readline()
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print(os.environ["AISTACK_LEASE"], flush=True)
signal.pause()
"""


def test_a_lease_is_kept_while_the_command_saves_and_released_after_it() -> None:
    client = Client(EmbeddedTransport())
    launched = subprocess.Popen(
        [*COMMAND, "request", "1/4", "--", sys.executable, "-S", "-c", SAVING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert launched.stdin is not None
    assert launched.stdout is not None
    lease_id = launched.stdout.readline().strip()
    launched.send_signal(signal.SIGTERM)
    assert launched.stdout.readline() == "saving\n"
    assert [lease["id"] for lease in client.leases()] == [lease_id]
    output, _ = launched.communicate("go on\n", timeout=30)
    assert output == "saved\n"
    assert launched.returncode == 0
    ended = {lease["id"]: lease["outcome"] for lease in client.leases(ended=True)}
    assert ended[lease_id] == "released"
    client.close()


def test_the_exit_code_is_the_commands_own() -> None:
    done = run(
        "request",
        "1/4",
        "--json",
        "--",
        "sh",
        "-c",
        "kill -9 $$",
        stdout=subprocess.PIPE,
    )
    assert done.returncode == 128 + signal.SIGKILL
    assert json.loads(done.stdout)["exit_code"] == 128 + signal.SIGKILL


def test_the_end_of_the_launcher_ends_the_whole_command_and_keeps_its_lease_till_then() -> (
    None
):
    """Killed as nobody can hear: the shell ends of SIGTERM, and what it runs saves."""
    inner = '"$0" -S -c "$1"; true'
    client = Client(EmbeddedTransport())
    launched = subprocess.Popen(
        [*COMMAND, "request", "1", "--", "sh", "-c", inner, sys.executable, SAVING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert launched.stdin is not None
    assert launched.stdout is not None
    lease_id = launched.stdout.readline().strip()
    os.kill(launched.pid, signal.SIGKILL)
    launched.wait(timeout=30)
    assert launched.stdout.readline() == "saving\n"
    with pytest.raises(AcquireTimeout):
        client.request("1/4", attach=False, timeout=0)
    assert [lease["id"] for lease in client.leases()] == [lease_id]
    launched.stdin.write("go on\n")
    launched.stdin.flush()
    assert launched.stdout.readline() == "saved\n"
    wait_until(lambda: client.leases() == [])
    client.request("1", attach=False, timeout=0).release()
    client.close()
    launched.stdin.close()
    launched.stdout.close()
