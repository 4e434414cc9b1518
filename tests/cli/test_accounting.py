"""``jupyter aistack usage --report`` and ``advise``."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.cli import main
from jupyter_aistack.cli.accounting import COLUMNS, as_csv
from jupyter_aistack.client import client as clients
from jupyter_aistack.core.accounting.charges import (
    NO_LEVELS,
    UsageRecord,
    UsageSummary,
    day_of,
)
from jupyter_aistack.core.accounting.usage_report import week_name
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.ledger.opening import open_ledger
from jupyter_aistack.system.users import current_user

TODAY = day_of(time.time())
WEEK = week_name(TODAY)


@pytest.fixture(autouse=True)
def books(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two users' use of today on a simulated host, and the rates of its site."""
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    monkeypatch.setattr(clients, "_connected", None)
    levels = (3600.0, 3600.0, *NO_LEVELS[2:])
    text: dict[str, Any] = {
        "host": "h",
        "device_id": "GPU-0",
        "day": TODAY,
        "spec": "1/2",
        "label": "a.ipynb",
    }
    text |= {
        "seconds": 7200.0,
        "share_seconds": 3600.0,
        "levels": levels,
        "busy_seconds": 180.0,
        "peak_bytes": GIB,
    }
    energy = {
        "millijoules": 1_800_000_000,
        "metered_seconds": 3600.0,
        "estimated_millijoules": 450_000_000,
    }
    charges = (
        UsageRecord(lease_id="l-1", user=current_user(), **text, **energy),
        UsageRecord(lease_id="l-2", user="=bob", **text),
    )
    ledger = open_ledger(os.environ["AISTACK_LEDGER"])
    ledger.settle(UsageSummary(charges=charges))
    ledger.close()


def test_the_report_is_a_table_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--report"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "week", "user", "GPU-h", "used", "at", "0", "%", "GiB-h", "kWh", "cost", "gCO2e", "CPU-h",
    ]  # fmt: skip
    assert lines[1].split()[:9] == [
        WEEK,
        current_user(),
        "1.00",
        "0.05",
        "0.50",
        "n/a",
        "0.500",
        "n/a",
        "n/a",
    ]
    remark = "energy known for 50% of the time, 0.125 kWh of it an estimate"
    assert lines[1].endswith(remark)
    assert len(lines) == 2


def test_all_users_and_one_week_as_csv(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["usage", "--report", "--all", "--week", WEEK, "--csv", "-"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["user"] for row in rows] == ["'=bob", current_user()], (
        "no spreadsheet may take a name for a formula"
    )
    assert (rows[0]["energy_kwh"], rows[1]["energy_kwh"], rows[0]["gpu_hours"]) == (
        "",
        "0.5",
        "1.0",
    )
    assert tuple(rows[0]) == COLUMNS
    assert main(["usage", "--user", "=bob", "--csv", str(tmp_path / "bob.csv")]) == 0
    assert (tmp_path / "bob.csv").read_text().count("\n") == 2
    assert as_csv([]) == ",".join(COLUMNS) + "\n"


def test_the_report_has_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--report", "--since", "2026-01-01", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [line["gpu_hours"] for line in report["lines"]] == [1.0]
    assert report["rates"]["carbon_g_per_kwh"] is None


def test_rates_are_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = "c.AIStack.carbon_g_per_kwh = 400\nc.AIStack.price_per_gpu_hour = 2.5\n"
    (tmp_path / "jupyter_server_config.py").write_text(settings)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    assert main(["usage", "--report", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert (line["co2e_g"], line["cost"]) == (200.0, 2.5)


def test_a_week_without_use_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--week", "2020-W10"]) == 0
    assert capsys.readouterr().out == "nothing was used in 2020-W10\n"


def test_advice_is_a_line_for_each_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(
        "a.ipynb: asked 1/2 = 40.0 GiB, peak 1.0 GiB, busy 10% (an estimate): 1/8 would"
    )
    assert main(["advise", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["advice"][0]["advised"] == "1/8"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--week", "48"], "week: '48' is not a week; write 2026-W48"),
        (["--since", "monday"], "since: 'monday' is not a time"),
        (
            ["--week", WEEK, "--since", "2026-01-01"],
            "week: give either a week or since and until",
        ),
        (
            ["--csv", "/no/such/folder/a.csv"],
            "csv: /no/such/folder/a.csv cannot be written",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["usage", "--report", *arguments]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert words in error[0]


def test_the_last_line_is_json_where_that_was_asked_for_beside_csv(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["usage", "--csv", "-", "--json"]) == 0
    heading, *_, last = capsys.readouterr().out.splitlines()
    assert heading.startswith("week,user,")
    assert json.loads(last)["lines"]
