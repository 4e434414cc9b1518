"""The checkpoint helper: what it answers, what it survives, and what is said when it
cannot.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.exceptions import CheckpointFailed
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
from jupyter_aistack.providers.nvidia.checkpoint.refusals import CheckpointRefusal
from tests.paths import FAKES

FAKE = FAKES / "fake_checkpoint.py"
PID, OTHER = 4711, 4712


@pytest.fixture
def states(tmp_path: Path) -> Path:
    file = tmp_path / "states.json"
    file.write_text(json.dumps({PID: "running", OTHER: "running"}))
    return file


@pytest.fixture
def helper(states: Path) -> Iterator[Callable[..., CheckpointClient]]:
    made: list[CheckpointClient] = []

    def make(**script: list[str]) -> CheckpointClient:
        made.append(
            CheckpointClient(
                (sys.executable, str(FAKE), str(states), json.dumps(script))
            )
        )
        return made[-1]

    yield make
    for client in made:
        client.close()


Make = Callable[..., CheckpointClient]


def test_out_and_back_with_the_seconds_of_each_step(helper: Make) -> None:
    client = helper(checkpoint=["slow"])
    assert client.probe() == ""
    assert client.state(PID) == "running"
    out = client.suspend(PID)
    assert (out.state, set(out.seconds)) == ("checkpointed", {"lock", "checkpoint"})
    assert out.seconds["checkpoint"] >= 0.2
    back = client.resume(PID)
    assert (back.state, set(back.seconds)) == ("running", {"restore", "unlock"})


def test_what_is_done_already_is_not_done_again(helper: Make) -> None:
    client = helper()
    assert client.resume(PID).seconds == {}
    client.suspend(PID)
    assert client.suspend(PID).seconds == {}


def test_a_busy_process_runs_on_and_may_be_tried_again(helper: Make) -> None:
    client = helper(lock=["timeout"])
    with pytest.raises(CheckpointFailed, match="CUDA_ERROR_NOT_READY") as failed:
        client.suspend(PID)
    assert failed.value.facts == {
        "step": "lock",
        "state": "running",
        "code": CheckpointRefusal.NOT_READY,
    }
    assert client.suspend(PID).state == "checkpointed"


def test_a_process_that_cannot_be_copied_is_let_go_on(helper: Make) -> None:
    client = helper(checkpoint=["unsupported"])
    with pytest.raises(CheckpointFailed, match="is not supported by") as failed:
        client.suspend(PID)
    assert failed.value.facts == {
        "step": "checkpoint",
        "state": "running",
        "code": CheckpointRefusal.NOT_SUPPORTED,
    }


def test_a_restore_that_meets_too_little_memory_is_not_tried_again(
    helper: Make,
) -> None:
    client = helper(restore=["oom"])
    client.suspend(PID)
    with pytest.raises(CheckpointFailed, match="CUDA_ERROR_OUT_OF_MEMORY") as failed:
        client.resume(PID)
    assert failed.value.facts == {
        "step": "restore",
        "state": "failed",
        "code": CheckpointRefusal.OUT_OF_MEMORY,
    }
    assert client.resume(PID).state == "failed"
    assert client.suspend(OTHER).state == "checkpointed"


def test_a_helper_that_crashed_is_replaced_and_the_next_one_finds_the_process_as_it_is(
    helper: Make,
) -> None:
    client = helper(lock=["", "crash"])
    client.suspend(PID)
    with pytest.raises(
        CheckpointFailed,
        match=r"helper ended \(139\) during suspend; ask for the state",
    ) as failed:
        client.suspend(OTHER)
    assert failed.value.facts == {
        "step": "suspend",
        "state": "unknown",
        "code": CheckpointRefusal.OTHER,
        "helper_ended": True,
    }
    assert client.state(OTHER) == "running"
    assert client.resume(PID).state == "running"


def test_several_processes_move_together(helper: Make, states: Path) -> None:
    client = helper()
    assert client.suspend(PID, OTHER).state == "checkpointed"
    assert set(json.loads(states.read_text()).values()) == {"checkpointed"}
    assert client.resume(PID, OTHER).state == "running"


@pytest.mark.parametrize(
    "script", [{"lock": ["", "timeout"]}, {"checkpoint": ["", "unsupported"]}]
)
def test_where_one_of_several_cannot_go_all_go_on(
    helper: Make, states: Path, script: dict[str, list[str]]
) -> None:
    client = helper(**script)
    with pytest.raises(CheckpointFailed) as failed:
        client.suspend(PID, OTHER)
    assert failed.value.facts["state"] == "running"
    assert set(json.loads(states.read_text()).values()) == {"running"}


@pytest.mark.parametrize("fault", ["no state", "no lock"])
def test_a_process_without_a_context_forbids_nothing_to_those_that_have_one(
    helper: Make, states: Path, fault: str
) -> None:
    first = "no context" if fault == "no state" else "running"
    states.write_text(json.dumps({PID: first, OTHER: "running"}))
    client = helper(lock=["no_context"] if fault == "no lock" else [])
    assert client.suspend(PID, OTHER).state == "checkpointed"
    assert json.loads(states.read_text()) == {
        str(PID): first,
        str(OTHER): "checkpointed",
    }
    assert client.resume(PID, OTHER).state == "running"
    assert json.loads(states.read_text()) == {str(PID): first, str(OTHER): "running"}


def test_where_none_has_a_context_that_is_said(helper: Make, states: Path) -> None:
    states.write_text(json.dumps({PID: "no context"}))
    with pytest.raises(CheckpointFailed, match="initialization error") as failed:
        helper().suspend(PID)
    assert failed.value.facts["code"] is CheckpointRefusal.NOT_INITIALIZED


def test_processes_that_differ_are_said_to_be_mixed_and_one_that_failed_counts_for_all(
    helper: Make,
) -> None:
    client = helper(restore=["", "oom"])
    client.suspend(PID)
    with pytest.raises(CheckpointFailed, match="no such process"):
        client.resume(PID, 99)
    assert client.suspend(PID, OTHER).state == "checkpointed"
    with pytest.raises(CheckpointFailed, match="OUT_OF_MEMORY") as failed:
        client.resume(PID, OTHER)
    assert failed.value.facts["state"] == "failed"


def test_a_process_that_is_gone_is_an_error_and_not_the_end(helper: Make) -> None:
    client = helper()
    with pytest.raises(CheckpointFailed, match="no such process"):
        client.suspend(99)
    assert client.state(PID) == "running"


def test_threads_take_turns(helper: Make, states: Path) -> None:
    client = helper(checkpoint=["slow"])
    done: list[str] = []
    slow = threading.Thread(target=lambda: done.append(client.suspend(PID).state))
    slow.start()
    while (
        json.loads(states.read_text() or "{}").get(str(PID)) == "running"
        and slow.is_alive()
    ):
        pass  # until it is locked, in the middle of its operation
    done.append(client.state(OTHER))
    slow.join()
    assert done == ["checkpointed", "running"]


def test_closing_waits_for_what_is_under_way(helper: Make) -> None:
    client = helper(checkpoint=["slow"])
    asked, result = threading.Event(), list[str]()

    def suspend() -> None:
        asked.set()
        result.append(client.suspend(PID).state)

    thread = threading.Thread(target=suspend)
    thread.start()
    asked.wait()
    client.close()
    thread.join()
    assert result == ["checkpointed"]


def ask_raw(*lines: str) -> list[dict[str, Any]]:
    """What the real helper answers to these lines, without a driver."""
    command = [
        sys.executable,
        "-m",
        "jupyter_aistack.providers.nvidia.checkpoint.helper",
    ]
    done = subprocess.run(
        command,
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_real_helper_answers_nonsense_and_goes_on() -> None:
    nonsense = [
        '{"id": 1, "op": "dance"}',
        '{"id": 2, "op": "suspend"}',
        '{"id": 3, "op": "state", "pid": "x"}',
    ]
    text = ask_raw("{", "[]", *nonsense)
    assert [each["id"] for each in text] == [None, None, 1, 2, 3]
    assert not any(each["ok"] for each in text)
    assert (
        "op: 'dance' is not known; write probe, state, suspend or resume"
        in text[2]["message"]
    )


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="a driver is here")
def test_without_a_driver_the_probe_says_why() -> None:
    client = CheckpointClient()
    assert client.probe()
    client.close()


def test_the_real_helper_does_not_end_at_ctrl_c() -> None:
    command = [
        sys.executable,
        "-m",
        "jupyter_aistack.providers.nvidia.checkpoint.helper",
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for question in ('{"id": 1, "op": "x"}\n', '{"id": 2, "op": "x"}\n'):
            process.stdin.write(question)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["ok"] is False
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
        process.stdin.close()
        assert process.wait() == 0
