"""What a section of the GPU suite does when something is refused, and that it walks
through the package as users do.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.core.model.device_state import DisplayState, SuspendMethod
from jupyter_aistack.core.suspend.capability import SuspendCapability
from jupyter_aistack.exceptions import AIStackError, ProviderError
from tests.benchmarks import gpu_suite
from tests.benchmarks.gpu import (
    bench as bench_module,
)
from tests.benchmarks.gpu import (
    caps,
    energy,
    notebooks,
    processes,
    product,
    running,
    teardown,
    tenants,
    warmup,
)
from tests.benchmarks.gpu.bench import Bench, Row, by_mode, by_name
from tests.benchmarks.gpu.units import GIB
from tests.paths import ROOT

REFUSAL = "the server of MPS ended as soon as it started"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(
        device="cpu", small=True, ends_at=time.monotonic() + 60, folder=tmp_path
    )


@contextmanager
def no_broker(**settings: Any) -> Iterator[Any]:
    yield None


@contextmanager
def refused(made: Any, spec: str) -> Iterator[Any]:
    """A lease that cannot be had."""
    raise ProviderError(REFUSAL)
    yield


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    for section in (caps, energy, teardown, tenants):
        monkeypatch.setattr(section, "broker", no_broker)
        monkeypatch.setattr(section, "gpus", lambda made: ["a GPU"])
        monkeypatch.setattr(section, "leased", refused)
    monkeypatch.setattr(energy, "tick", lambda bench: None)


def test_each_lease_that_is_refused_costs_its_own_row(
    bench: Bench, refusing: None
) -> None:
    rows = by_name(list(caps.rows(bench)))
    assert [f"auto.{spec}" for spec in caps.SPECS] == list(rows)[:3]
    assert {row.says for row in rows.values()} == {f"failed: {REFUSAL}"}
    assert len(rows) == len(caps.SPECS) * len(list(bench_module.modes()))


@pytest.mark.parametrize("section", [energy, teardown])
def test_where_the_firmest_way_is_refused_the_next_is_measured(
    section: Any, bench: Bench, refusing: None
) -> None:
    rows = by_name(list(section.rows(bench)))
    for mode, _ in bench_module.modes():
        assert rows[f"{mode}.failed"].says == f"failed: {REFUSAL}"


def test_without_a_dedicated_gpu_tenants_stand_beside_nothing_and_say_so(
    bench: Bench, refusing: None
) -> None:
    (row,) = tenants.rows(bench)
    assert (row.name, row.says) == ("alone", f"failed: {REFUSAL}")


def test_the_first_way_that_can_be_had_is_the_one_that_is_measured() -> None:
    asked: list[str] = []

    def measure(mode: str, settings: dict[str, Any]) -> Iterator[Row]:
        asked.append(mode)
        if mode == "auto":
            raise AIStackError("no")
        yield Row(name=mode, value=1.0)

    rows = list(by_mode(measure))
    assert [row.name for row in rows] == ["auto.failed", "advisory"]
    assert asked == ["auto", "advisory"]


# -- warming up ------------------------------------------------------------------------


def test_what_the_host_has_once_it_was_touched_is_told_with_how_that_ended() -> None:
    lines: list[dict[str, Any]] = [
        {"touched_gib": 4, "available_gib": 20.0},
        {"touched_gib": 7, "available_gib": 18.0, "stopped": "the host is short"},
    ]
    row = warmup.touched_row(lines, 0)
    assert row.value == 18.0
    assert row.says == "7 GiB were touched, no more because the host is short"
    assert warmup.touched_row(lines, -9).says.endswith("ended with -9")
    assert warmup.touched_row([], -9).says == "failed: its process ended with -9"


def test_touching_stops_before_the_host_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.benchmarks.gpu import host_memory

    monkeypatch.setattr(host_memory, "available_bytes", lambda: 3 * GIB - 1)
    last, given_back = host_memory.touched(60)
    assert (last["touched_gib"], last["stopped"]) == (0, "the host is short of memory")
    assert given_back["given_back"] == 1.0


# -- the package's own way -------------------------------------------------------------


def test_a_host_that_cannot_suspend_is_no_success() -> None:
    passed = SuspendCapability(tier=SuspendMethod.CHECKPOINT)
    assert next(product.judged(passed, 2.0)).verdict.endswith("met")
    off = SuspendCapability(tier=SuspendMethod.OFF, why="memory stayed on the GPU")
    row = next(product.judged(off, 2.0))
    assert (row.value, row.says) == (0.0, "off memory stayed on the GPU")
    assert row.verdict.endswith("MISSED")


@pytest.mark.parametrize(
    ("standing", "why", "is_checked"),
    [
        (DisplayState.WARM, "", True),
        (DisplayState.PINNED, "suspend support not checked yet", False),
        (DisplayState.PINNED, "it runs under MPS", True),
        (DisplayState.HELD, "", False),
        (None, "", False),
    ],
)
def test_the_preflight_is_waited_for(
    standing: DisplayState | None, why: str, is_checked: bool
) -> None:
    assert product.is_checked({"standing": standing, "why": why}) is is_checked


def test_the_kernel_gets_so_little_that_the_host_can_hold_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = {"devices": [{"kind": "cpu"}, {"kind": "gpu", "memory_bytes": 140 * GIB}]}
    monkeypatch.setattr(product, "available_bytes", lambda: 128 * GIB)
    assert product.share(host) == "gpu:1/8"
    monkeypatch.setattr(product, "available_bytes", lambda: 20 * GIB)
    assert product.share(host) == "gpu:1/14"


def test_what_a_cell_tells_is_told_from_what_brings_its_state_back() -> None:
    text = "Resuming 4.0 MiB: 0.1 s\nstarted 12.5 7\n"
    assert notebooks.words_after("started", text) == ["12.5", "7"]
    with pytest.raises(RuntimeError, match="told of no 'right'"):
        notebooks.words_after("right", text)


def test_a_kernel_of_the_suite_has_the_magics_that_bring_its_state_back(
    tmp_path: Path,
) -> None:
    notebooks.write_kernelspec(tmp_path, "suite", "gpu:1/4", "default")
    stanza = json.loads((tmp_path / "kernels" / "suite" / "kernel.json").read_text())
    assert "--ext=jupyter_aistack.magics" in stanza["argv"]


def test_a_kernel_goes_out_and_comes_back_through_a_server(tmp_path: Path) -> None:
    options = gpu_suite.parsed(
        ["--device=cpu", "--small", "--only=product", "--budget=240"]
    )
    with gpu_suite.environment("cpu", str(tmp_path)) as given:
        rows = by_name(
            gpu_suite.measure(options, tmp_path, given, sys.stderr)["product"]
        )
    assert rows["self_test.passed"].says == "checkpoint"
    assert rows["preflight.passed"].value == 1.0, rows["preflight.passed"].says
    assert rows["kernel.out_seconds"].says == "checkpoint, 4 MiB"
    assert rows["kernel.data_right"].value == 1.0
    assert "kernel.end_seconds" in rows
    assert {"failed", "cut", "left_behind"}.isdisjoint(rows)


# -- the time for all ------------------------------------------------------------------

STAYS = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


def test_tidying_up_ends_with_the_time_for_all(tmp_path: Path) -> None:
    begin = time.monotonic()
    ending = processes.run_marked(
        [sys.executable, "-S", "-c", STAYS],
        1.5,
        os.environ,
        lambda line: None,
        latest=begin + 1.5,
    )
    assert ending.is_cut
    assert ending.left == ()
    assert time.monotonic() - begin < processes.TIDY_SECONDS


def test_of_a_budget_some_is_kept_for_tidying_up() -> None:
    assert processes.kept(500.0) == processes.BUDGET_KEPT
    assert processes.kept(100.0) == pytest.approx(10.0)


def test_the_driver_s_programs_are_searched_for_beside_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    with gpu_suite.environment("cuda", str(tmp_path)) as given:
        folders = given["PATH"].split(os.pathsep)
    assert folders[0] == "/usr/bin"
    assert "/usr/local/nvidia/bin" in folders
    assert given["PYTHONPATH"].startswith(str(ROOT))


def test_a_line_that_is_no_row_is_left_out() -> None:
    assert running._row("a warning of a library") is None
