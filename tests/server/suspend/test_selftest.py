"""Whether a host can suspend is tried on a process of its own: with fakes of the
driver's library and of its helper.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jupyter_aistack.core.suspend.departure import DeviceUse
from jupyter_aistack.ledger.opening import results_file
from jupyter_aistack.providers.nvidia.checkpoint import selftest_child
from jupyter_aistack.server.suspend import selftest
from jupyter_aistack.server.suspend.selftest import Results
from tests.server.suspend.conftest import Make

CONTEXT = 400 << 20
HELD = CONTEXT + selftest_child.SIZE_BYTES


@pytest.fixture
def library(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", driver)


def held_until_away(states: Path, after: int | None = 0) -> selftest.Measure:
    """What NVML says: a process holds memory while its state is not away, and is listed
    with `after` then.
    """

    def measure(pid: int) -> DeviceUse:
        is_away = json.loads(states.read_text()).get(str(pid)) == "checkpointed"
        return DeviceUse(
            held_bytes=after if is_away else HELD, used_bytes=0 if is_away else HELD
        )

    return measure


def always(held_bytes: int | None) -> selftest.Measure:
    return lambda pid: DeviceUse(held_bytes=held_bytes, used_bytes=HELD)


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
        ({"checkpoint": ["unsupported"]}, "is not supported by the installed"),
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
    monkeypatch.setattr(selftest, "SETTLE_SECONDS", 0.0)
    assert "memory stayed on the GPU" in selftest.run("GPU-a", helper(), always(HELD))
    for unseen in (0, None):
        assert "another process namespace" in selftest.run(
            "GPU-a", helper(), always(unseen)
        )


@pytest.mark.parametrize("after", [0, 1 << 20, None])
def test_a_process_that_stays_listed_has_left_if_its_memory_has(
    library: None, helper: Make, states: Path, after: int | None
) -> None:
    assert selftest.run("GPU-a", helper(), held_until_away(states, after)) == ""


def test_a_foreign_mps_server_gets_neither_the_child_nor_the_helper_as_a_client(
    library: None,
    helper: Make,
    states: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipes = tmp_path / "nvidia-mps"
    pipes.mkdir()
    (pipes / "control").touch()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(pipes))
    client = helper()
    assert selftest.run("GPU-a", client, held_until_away(states)) == ""
    assert [file.name for file in pipes.iterdir()] == ["control"]
    assert client._process is not None
    environment = Path(f"/proc/{client._process.pid}/environ").read_bytes()
    assert b"CUDA_MPS_PIPE_DIRECTORY=/dev/null" in environment.split(b"\0")


def test_a_context_is_what_a_process_holds_beside_what_it_has_allocated(
    library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert selftest.measure_context("GPU-a", always(HELD)) == CONTEXT
    monkeypatch.setattr(selftest, "SETTLE_SECONDS", 0.0)
    for unknown in (None, 0, selftest_child.SIZE_BYTES):
        assert selftest.measure_context("GPU-a", always(unknown)) is None
    monkeypatch.setenv("FAKE_CUDA", "none")
    assert selftest.measure_context("GPU-a", always(HELD)) is None


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
    assert results.context_bytes("580", "H200") is None
    results.note_context("580", "H200", CONTEXT)
    results.note("580", "GPU-a", has_passed=True)
    assert Results(file).context_bytes("580", "H200") == CONTEXT
    assert results.context_bytes("590", "H200") is None
    assert results_file("sqlite:////srv/a/ledger.sqlite", tmp_path) == Path(
        "/srv/a/suspend-tested.json"
    )
    assert (
        results_file("postgresql://db/a", tmp_path)
        == tmp_path / "aistack" / "suspend-tested.json"
    )
