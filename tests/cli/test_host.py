"""What ``doctor`` says of drivers that can do less, over a fake driver."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.child import Child
from tests.fakes.nvml.states import h200

SETUP = """
import contextlib, io, os
os.environ["AISTACK_PROVIDERS"] = "auto"
from jupyter_aistack.cli import main
from jupyter_aistack.client import client

def doctor(*options):
    client._connected = None
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = main(["doctor", *options])
    return code, text.getvalue()
"""


@pytest.fixture
def child(fake_nvml: Any, tmp_path: Any) -> Child:
    started: Child = fake_nvml.python(h200(), SETUP)
    started.run(
        "os.environ['PATH'] = path; os.environ['AISTACK_LEDGER'] = ledger",
        path=str(tmp_path),
        ledger=f"sqlite:///{tmp_path / 'ledger.db'}",
    )
    return started


def gpu_of(child: Child) -> dict[str, Any]:
    _, text = child("doctor('--json')")
    devices = json.loads(text)["devices"]
    return next(device for device in devices if device["kind"] == "gpu")


LESS = (
    (h200(mode=2), "problem", "PROHIBITED, in which no process can use it; nvidia"),
    (h200(virtual=3), "problem", "given to virtual machines by this host (vGPU)"),
    (h200(virtual=4), "problem", "works for no process of the host itself"),
    (h200(mode=3), "advice", "EXCLUSIVE_PROCESS, in which one process at a time"),
    (h200(virtual=2), "advice", "it is a virtual GPU (vGPU): its memory is its"),
    (h200(unified=1), "advice", "it works in the host's memory, which other"),
    (h200(nolist=1), "advice", "its driver lists no processes (as under WSL)"),
)
SILENT = (
    ("fail nvmlInit 9\n", "installed but not loaded"),
    ("fail nvmlInit 18\n", "do not belong together; after an update reboot"),
    ("fail nvmlInit 4\n", "is refused to this user"),
)


def test_a_gpu_that_can_do_less_is_told_in_text_and_json(
    fake_nvml: Any, child: Child
) -> None:
    for state, field, words in LESS:
        fake_nvml.change(state)
        code, text = child("doctor()")
        assert words in text
        assert code == (field == "problem"), text
        assert words in gpu_of(child)[field]


def test_what_only_the_host_can_run_is_told_so(fake_nvml: Any, child: Child) -> None:
    fake_nvml.change(h200(mode=2))
    assert "on the host (it is not on the server's PATH), opens it" in child(
        "doctor()[1]"
    )


def test_a_driver_that_does_not_answer_is_a_problem_and_the_cpu_is_there(
    fake_nvml: Any, child: Child
) -> None:
    for state, words in SILENT:
        fake_nvml.change(h200() + state)
        code, text = child("doctor()")
        assert code == 1
        assert words in text
        report = json.loads(child("doctor('--json')")[1])
        assert any(words in problem for problem in report["problems"])
        assert [device["kind"] for device in report["devices"]] == ["cpu"]
