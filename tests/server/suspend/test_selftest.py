"""Whether a host can suspend is tried on a process of its own: with fakes of the
driver's library and of its helper.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.config import results_file
from jupyter_aistack.core.model.device_state import SuspendMethod
from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.suspend.capability import NO_GPU, SWITCHED_OFF
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.base import Provider
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.server.suspend import selftest
from jupyter_aistack.server.suspend.capability import SIMULATED, find_out
from jupyter_aistack.server.suspend.selftest import Results
from jupyter_aistack.testing import ManualClock
from tests.fakes.fake_gpu import FakeGPU
from tests.paths import FAKES

FAKE = FAKES / "fake_checkpoint.py"
Make = Callable[..., CheckpointClient]


@pytest.fixture
def states(tmp_path: Path) -> Path:
    file = tmp_path / "states.json"
    file.write_text("{}")
    return file


@pytest.fixture
def helper(states: Path) -> Iterator[Make]:
    """A helper for which every process runs at first."""
    made: list[CheckpointClient] = []

    def make(**script: list[str]) -> CheckpointClient:
        made.append(
            CheckpointClient(
                (sys.executable, str(FAKE), str(states), json.dumps(script), "running")
            )
        )
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def library(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", driver)


def held_until_away(states: Path) -> selftest.Held:
    """What NVML says: a process holds memory while its state is not away."""
    return lambda pid: (
        0
        if json.loads(states.read_text()).get(str(pid)) == "checkpointed"
        else 64 << 20
    )


def test_a_pattern_goes_out_comes_back_and_its_process_is_suspended_when_it_is_killed(
    library: None, helper: Make, states: Path
) -> None:
    assert selftest.run("GPU-a", helper(), held_until_away(states)) == ""
    assert list(json.loads(states.read_text()).values()) == ["checkpointed"]


def test_a_pattern_that_comes_back_otherwise_is_found_out(
    library: None,
    helper: Make,
    states: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bad").touch()
    monkeypatch.setenv("FAKE_CUDA_BAD", str(tmp_path / "bad"))
    why = selftest.run("GPU-a", helper(), held_until_away(states))
    assert why == "the self-test failed: what came back is not what was suspended"
    assert list(json.loads(states.read_text()).values()) == ["checkpointed"], (
        "not killed as it was restored"
    )


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ({"lock": ["timeout"]}, "CUDA_ERROR_NOT_READY"),
        ({"checkpoint": ["unsupported"]}, "CUDA_ERROR_NOT_SUPPORTED"),
        ({"restore": ["oom"]}, "CUDA_ERROR_OUT_OF_MEMORY"),
        ({"lock": ["denied"]}, "CUDA_ERROR_NOT_PERMITTED"),
    ],
)
def test_whatever_the_driver_refuses_is_the_reason(
    library: None, helper: Make, states: Path, script: dict[str, list[str]], says: str
) -> None:
    why = selftest.run("GPU-a", helper(**script), held_until_away(states))
    assert why.startswith("the self-test failed: ")
    assert says in why


def test_memory_that_stays_is_a_failure(
    library: None, helper: Make, states: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "GONE_SECONDS", 0.0)
    assert "memory stayed on the GPU" in selftest.run(
        "GPU-a", helper(), lambda pid: 64 << 20
    )
    assert "another process namespace" in selftest.run("GPU-a", helper(), lambda pid: 0)
    assert "another process namespace" in selftest.run(
        "GPU-a", helper(), lambda pid: None
    )


def test_a_process_that_cannot_use_the_gpu_says_why(
    library: None, helper: Make, states: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CUDA", "none")
    why = selftest.run("GPU-a", helper(), held_until_away(states))
    assert (
        why
        == "the self-test failed: its process could not use the GPU: cuInit answers 100"
    )


def test_a_process_that_hangs_in_the_driver_is_given_up(
    library: None, helper: Make, states: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CUDA", "hangs")
    monkeypatch.setattr(selftest, "VICTIM_SECONDS", 0.1)
    assert "could not use the GPU" in selftest.run(
        "GPU-a", helper(), held_until_away(states)
    )


def broker(*providers: Provider, is_on: bool = True) -> Broker:
    return Broker(
        MemoryLedger(),
        providers,
        host="box",
        suspend=SuspendPolicy() if is_on else None,
    )


def test_a_host_is_as_ready_as_its_driver_and_its_gpus(
    helper: Make, states: Path, tmp_path: Path
) -> None:
    clock, tried = ManualClock(), list[str]()
    results = Results(tmp_path / "deep" / "tested.json", clock)

    def test(uuid: str, client: CheckpointClient, held: selftest.Held) -> str:
        tried.append(uuid)
        assert held(os.getpid()) == 0, "it is not on the GPU"
        return answers[uuid]

    def ready(
        version: str = "580.126.09", is_on: bool = True
    ) -> tuple[SuspendMethod, str]:
        found = find_out(
            broker(FakeGPU(states), is_on=is_on),
            helper(),
            results,
            lambda: version,
            test,
        )
        return found.tier, found.why

    answers = {"GPU-a": "", "GPU-b": "memory stayed"}
    assert ready(is_on=False) == (SuspendMethod.OFF, SWITCHED_OFF.why)
    assert ready("570.1")[0] is SuspendMethod.OFFLOAD
    assert tried == [], "a driver that is known to be bad is not tried"
    assert ready() == (SuspendMethod.OFFLOAD, "GPU b: memory stayed")
    answers["GPU-b"] = ""
    tried.clear()
    assert ready() == (SuspendMethod.CHECKPOINT, "")
    assert tried == ["GPU-b"], (
        "what has passed is remembered, what has failed is tried again"
    )
    tried.clear()
    assert ready() == (SuspendMethod.CHECKPOINT, "")
    assert tried == []
    assert ready("590.1") == (SuspendMethod.CHECKPOINT, "")
    assert tried == ["GPU-a", "GPU-b"], "another driver is another matter"
    clock.advance(8 * 86400)
    tried.clear()
    assert ready() == (SuspendMethod.CHECKPOINT, "")
    assert tried == ["GPU-a", "GPU-b"]


def test_without_a_gpu_or_with_simulated_ones_nothing_is_tried(
    helper: Make, tmp_path: Path
) -> None:
    results = Results(tmp_path / "tested.json")
    assert find_out(broker(), helper(), results, lambda: "580.1") == NO_GPU
    simulated = broker(SimulatedProvider("1xH100-80GB"))
    assert find_out(simulated, helper(), results, lambda: "") == SIMULATED
    cut = broker(SimulatedProvider("1xH200-141GB:mig=1g.18gb*7"))
    assert find_out(cut, helper(), results, lambda: "") == SIMULATED


def test_results_survive_nonsense_and_are_kept_beside_the_ledger(
    tmp_path: Path,
) -> None:
    file = tmp_path / "tested.json"
    file.write_text("[1")
    results = Results(file)
    assert not results.passed("580", "GPU-a")
    results.note("580", "GPU-a", has_passed=True)
    assert results.passed("580", "GPU-a")
    results.note("580", "GPU-a", has_passed=False)
    assert not results.passed("580", "GPU-a")
    assert results_file("sqlite:////srv/a/ledger.sqlite", tmp_path) == Path(
        "/srv/a/suspend-tested.json"
    )
    assert (
        results_file("postgresql://db/a", tmp_path)
        == tmp_path / "aistack" / "suspend-tested.json"
    )
