"""The tour as `make demo HEADLESS=1` runs it: a real server, provisioner, kernel,
cluster, training and store.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FLIGHTS = 336_776


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The demo command in an empty home, on the CPU."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AISTACK_", "MLFLOW_"))
    }
    environment |= {
        "AISTACK_LEDGER": f"sqlite:///{folder / 'ledger.sqlite'}",
        "AISTACK_PROVIDERS": "cpu",
        "HOME": str(folder),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }
    command = [
        sys.executable,
        "-m",
        "jupyter_aistack.cli",
        "demo",
        "--json",
        *arguments,
    ]
    return subprocess.run(
        command,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tour")


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    done = demo(folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("[") >= 12, "a line of progress for each step"
    outcome: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return outcome


def test_the_kernel_held_a_verified_quarter(result: dict[str, Any]) -> None:
    lease = result["lease"]
    assert (lease["spec"], lease["state"], lease["enforced_by"], lease["verified"]) == (
        "1/4",
        "active",
        "C",
        True,
    )
    assert lease["holder"]["label"] == "tour.ipynb"


def test_all_flights_were_read_and_the_model_beats_a_coin_on_the_next_season(
    result: dict[str, Any],
) -> None:
    assert result["rows"] == FLIGHTS
    assert result["cluster"]["workers"] == 2
    assert 0.65 < result["train"]["auc"] < 0.80, (
        "below: it learns nothing; above: it knows what it must not"
    )
    assert result["train"]["rows_per_second"] > 0


def test_every_point_of_the_run_is_in_the_store(
    result: dict[str, Any], folder: Path
) -> None:
    with sqlite3.connect(folder / "mlflow.db") as store:
        run_id = result["mlflow"]["run_id"]
        (points,) = store.execute(
            "SELECT count(*) FROM metrics WHERE run_uuid = ?", (run_id,)
        ).fetchone()
        ((status,),) = store.execute(
            "SELECT status FROM runs WHERE run_uuid = ?", (run_id,)
        ).fetchall()
    assert points == result["mlflow"]["metrics_logged"] > 20
    assert status == "FINISHED"


def test_it_says_what_it_cost_and_nothing_it_does_not_know(
    result: dict[str, Any],
) -> None:
    assert 0 < result["cost"]["slice_hours"] < 3 * result["seconds"] / 3600
    assert result["cost"]["energy_wh"] is None, "no device here measures energy"


def test_nothing_is_held_afterwards(result: dict[str, Any], folder: Path) -> None:
    with sqlite3.connect(folder / "ledger.sqlite") as ledger:
        outcomes = {
            row[0] for row in ledger.execute("SELECT outcome FROM aistack_leases")
        }
    assert outcomes == {"released"}


def test_a_step_that_fails_ends_the_demo_with_its_error(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "code", "source": "%gpu request banana"},
        {"cell_type": "code", "source": "summary = {}"},
    ]
    notebook = tmp_path / "broken.ipynb"
    notebook.write_text(
        json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}})
    )
    done = demo(tmp_path, "--notebook", str(notebook))
    assert done.returncode == 2
    assert "spec: 'banana' is not a slice" in done.stderr
    assert (
        json.loads(done.stdout.strip().splitlines()[-1])["error"]["code"]
        == "DemoFailed"
    )
