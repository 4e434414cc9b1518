"""What the magics tell the books, and show of them."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from jupyter_aistack.client import client
from jupyter_aistack.client.display import Panel
from jupyter_aistack.core.accounting.charges import (
    NO_LEVELS,
    CellInterval,
    UsageRecord,
    UsageSummary,
    day_of,
)
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.notebook.magics.extension import AIStackMagics
from jupyter_aistack.notebook.panels import accounting
from jupyter_aistack.notebook.session.cell_timing import MAX_WAITING, CellTimer
from jupyter_aistack.system.users import current_user
from tests.fakes.shells import gpu
from tests.fakes.waiting import wait_until


def books_of(broker: client.Client) -> Any:
    return broker._transport._broker  # type: ignore[attr-defined]


def told(broker: client.Client, count: int) -> tuple[CellInterval, ...]:
    """The spans the ledger has, once there are so many that have ended."""
    for _ in range(600):
        spans: tuple[CellInterval, ...] = books_of(broker).ledger.cells(
            books_of(broker).host, 0.0
        )
        if len([span for span in spans if span.ended_at is not None]) >= count:
            return spans
        time.sleep(0.01)
    raise AssertionError(f"only {spans} were told")


# -- telling ---------------------------------------------------------------------------


def test_cells_are_told_by_number_and_hash_and_never_by_their_code(
    shell: InteractiveShell, broker: client.Client
):
    gpu(shell, "request 1/4")
    shell.run_cell("secret = 'hunter2'", store_history=True)
    shell.run_cell("1 / 0", store_history=True)
    first, second = told(broker, 2)
    assert (first.cell.partition(":")[0], second.cell.partition(":")[0]) == ("1", "2")
    assert len(first.cell.partition(":")[2]) == 8
    assert "hunter2" not in f"{first}"
    assert first.owner.startswith("pid-")
    assert (
        first.began_at
        <= (first.ended_at or 0)
        <= second.began_at
        <= (second.ended_at or 0)
    )


def test_without_a_lease_nothing_is_told_and_no_thread_started(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(
        sys.modules, "jupyter_aistack.compute.clusters.cluster", raising=False
    )
    before = {thread.name for thread in threading.enumerate()}
    shell.run_cell("1 + 1")
    assert (
        "aistack-cells"
        not in {thread.name for thread in threading.enumerate()} - before
    )


def test_a_cell_that_gives_its_lease_back_is_told_to_its_end(
    shell: InteractiveShell, broker: client.Client
):
    gpu(shell, "request 1/4")
    shell.run_cell("get_ipython().run_line_magic('gpu', 'release')", store_history=True)
    (span,) = told(broker, 1)
    assert span.ended_at is not None


def test_a_cell_on_a_lease_of_its_own_is_charged_to_it(
    shell: InteractiveShell, broker: client.Client
):
    shell.run_cell("%%gpu 1/4\nimport time\ntime.sleep(0.05)", store_history=True)
    (span,) = told(broker, 1)
    books_of(broker).record_usage(settle=True)
    ledger = books_of(broker).ledger
    cells = wait_until(
        lambda: {each.cell for each in ledger.charges(0, 99_999) if each.cell}
    )
    assert cells == {span.cell}


def test_the_thread_ends_with_the_magics(
    magics: AIStackMagics, shell: InteractiveShell, broker: client.Client
):
    before = set(threading.enumerate())
    gpu(shell, "request 1/4")
    shell.run_cell("1", store_history=True)
    (thread,) = (
        thread
        for thread in set(threading.enumerate()) - before
        if thread.name == "aistack-cells"
    )
    magics.unregister()
    assert not thread.is_alive()
    assert len(told(broker, 1)) == 1, "what waited was sent first"
    magics.register()


class Answering:
    """Stands for the granting side: slow, or silent."""

    def __init__(self) -> None:
        self.calls: list[list[dict[str, Any]]] = []
        self.is_silent = False
        self.gate = threading.Event()

    def call(self, verb: str, **payload: Any) -> dict[str, Any]:
        self.gate.wait(10)
        if self.is_silent:
            raise LedgerUnavailable("nobody answers")
        self.calls.append(payload["cells"])
        return {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    answering = Answering()
    monkeypatch.setenv("AISTACK_LEASE", "l-1")
    monkeypatch.setattr(
        "jupyter_aistack.notebook.session.cell_timing.BATCH_SECONDS", 0.02
    )
    clock = CellTimer(type("Shell", (), {"execution_count": 5}), lambda: answering)
    yield clock, answering
    answering.is_silent = False
    answering.gate.set()
    clock.close()


def run(clock: CellTimer, code: str = "1") -> float:
    """Seconds that a cell of nothing takes."""
    start = time.perf_counter()
    clock.before_cell(type("Info", (), {"raw_cell": code}))
    clock.after_cell()
    return time.perf_counter() - start


def test_a_cell_waits_for_nobody(clock: Any):
    cells, answering = clock
    run(cells)  # starts the thread
    assert min(run(cells, "x = 1\n" * 200) for _ in range(50)) < 0.002
    assert answering.calls == []


def test_what_could_not_be_told_is_told_later_but_not_without_end(clock: Any):
    cells, answering = clock
    answering.is_silent = True
    answering.gate.set()
    for number in range(MAX_WAITING + 20):
        run(cells, str(number))
    answering.is_silent = False
    wait_until(lambda: answering.calls)
    sent = [span for call in answering.calls for span in call]
    assert 0 < len(sent) <= MAX_WAITING
    assert all(span["ended_at"] >= span["began_at"] for span in sent)


# -- showing ---------------------------------------------------------------------------


def charge(**fields: Any) -> UsageRecord:
    text: dict[str, Any] = {
        "host": "h",
        "device_id": "GPU-0",
        "lease_id": "l-1",
        "day": day_of(time.time()),
    }
    text |= {
        "user": current_user(),
        "owner": f"pid-{os.getpid()}",
        "label": "a.ipynb",
        "spec": "1/2",
    }
    text |= {
        "seconds": 3600.0,
        "share_seconds": 1800.0,
        "levels": (0.0, 3600.0, *NO_LEVELS[2:]),
    }
    text |= {
        "millijoules": 3_600_000,
        "metered_seconds": 3600.0,
        "busy_seconds": 180.0,
        "peak_bytes": 9 * GIB,
    }
    return UsageRecord(**text | fields)


@pytest.fixture
def used(broker: client.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    charges = (
        charge(),
        charge(cell="3:ab", millijoules=7_200_000),
        charge(cell="4:cd", peak_bytes=None),
    )
    books_of(broker).ledger.settle(UsageSummary(charges=charges))


def test_usage_shows_what_the_kernel_and_its_cells_have_used(
    shell: InteractiveShell, used: None
):
    shown = gpu(shell, "usage")
    assert "Since this kernel began" in shown
    assert "4.000 Wh" in shown
    lines = [
        line.split() for line in shown.splitlines() if line.strip().startswith("[")
    ]
    assert [line[0] for line in lines] == ["[3]", "[4]"], "the dearest first"
    assert lines[0][1:3] == ["2.000", "Wh"]
    assert lines[1][-1] == "n/a"
    assert "cost" not in shown, "without a price there is none"


def test_usage_marks_what_is_an_estimate(
    shell: InteractiveShell, broker: client.Client
):
    estimated = charge(cell="3:ab", estimated_millijoules=900_000)
    books_of(broker).ledger.settle(UsageSummary(charges=(estimated,)))
    shown = gpu(shell, "usage")
    assert "1.000 Wh, 0.250 Wh of it an estimate" in shown
    assert "about 1.000 Wh" in shown


def test_usage_of_the_week_is_the_notebooks(
    shell: InteractiveShell, used: None, capsys: pytest.CaptureFixture[str]
):
    shown = gpu(shell, "usage --week")
    assert "What a.ipynb has used" in shown
    assert "1.50" in shown
    shell.run_line_magic("gpu", "usage --week --json")
    answer = json.loads(capsys.readouterr().out)
    assert (answer["label"], answer["total"]["energy_kwh"]) == (
        "a.ipynb",
        pytest.approx(0.004),
    )


def test_advice_is_shown_and_offered_at_the_next_request(
    shell: InteractiveShell, used: None, capsys: pytest.CaptureFixture[str]
):
    assert "1/4 would do" in gpu(shell, "advise")
    shown = gpu(shell, "request 1/2")
    assert shown.splitlines()[-1].startswith(
        "this notebook asked 1/2 = 40.0 GiB, peak 9.0 GiB"
    )
    gpu(shell, "release")
    capsys.readouterr()
    shell.run_line_magic("gpu", "request 1/4 --json")
    assert json.loads(capsys.readouterr().out)["advice"] is None


def test_without_history_advice_says_so(shell: InteractiveShell):
    assert gpu(shell, "advise").startswith("No advice yet: it has held no GPU yet")
    assert "Nothing was charged" in gpu(shell, "usage --week")


def test_what_is_unknown_is_not_shown_as_zero():
    total = dict.fromkeys(
        (
            "gpu_hours_used",
            "gpu_hours_idle",
            "peak_bytes",
            "energy_kwh",
            "energy_coverage",
            "energy_estimated_kwh",
        )
    )
    total |= {"gpu_hours": 1.0, "is_simulated": True, "cost": 2.5, "co2e_g": None}
    bill = {"leases": {"l-1": {}}, "total": total, "cells": []}
    shown = str(Panel(title="In use now", parts=accounting.bill_parts(bill)))
    assert shown.count("n/a") == 4
    assert "1.0000 (simulated)" in shown
    assert "2.50" in shown
    assert "carbon" not in shown
    assert Panel(title="<b>", parts=(Panel(title="<i>"),)).to_html().count("&lt;") == 2
