"""``jupyter aistack audit`` and ``archive``."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jupyter_aistack.cli import main
from jupyter_aistack.client import client as clients
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.ledger.opening import open_ledger
from jupyter_aistack.system.users import current_user


@pytest.fixture(autouse=True)
def trail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four events: two of long ago, two of now; one of each is of this user's."""
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    monkeypatch.setattr(clients, "_connected", None)
    ledger = open_ledger(os.environ["AISTACK_LEDGER"])
    for at in (5.0, 6.0, time.time(), time.time()):
        for owner in (current_user(), "bob"):
            event = Event(
                kind=EventKind.LEASE_EXTENDED,
                at=at,
                owner=owner,
                lease_id=f"l-{owner}",
                after='{"ends_at":9.0}',
            )
            ledger.record(event)
    ledger.close()


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return report


def spoil(statement: str) -> None:
    engine = sa.create_engine(os.environ["AISTACK_LEDGER"])
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_who_changed_what_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--user", current_user(), "--since", "2020-01-01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "when",
        "who",
        "process",
        "what",
        "of",
        "before",
        "after",
        "why",
    ]
    assert len(lines) == 5
    assert "LeaseExtended" in lines[1]
    assert "ends_at=9.0" in lines[1]


def test_events_are_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--json", "--since", "2020-01-01"]) == 0
    events = printed(capsys)["events"]
    assert [event["sequence"] for event in events] == [5, 6, 7, 8]
    assert events[0]["after"] == {"ends_at": 9.0}


def test_a_time_may_be_told_by_how_long_ago(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["audit", "--json", "--since", "1d"]) == 0
    assert [event["sequence"] for event in printed(capsys)["events"]] == [5, 6, 7, 8]


def test_what_was_written_is_said_to_be_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["audit", "verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "8 events are as they were written, from event 1 on"
    assert lines[1].startswith("the last is event 8, ")


def test_the_first_event_that_was_changed_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil("UPDATE aistack_events SET owner = 'eve' WHERE sequence = 3")
    assert main(["audit", "verify"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "event 3 is not as it was written; 2 events before it are whole"
    ]
    assert main(["audit", "verify", "--json"]) == 1
    report = printed(capsys)
    assert report["is_whole"] is False
    assert (report["flaw"]["kind"], report["flaw"]["sequence"]) == ("edited", 3)


def test_an_export_can_be_verified_and_its_first_flaw_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "trail.jsonl"
    assert main(["audit", "--output", str(file)]) == 0
    assert capsys.readouterr().out == f"8 events are in {file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = file.read_text().splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == list(range(1, 9))
    assert main(["audit", "verify", "--input", str(file)]) == 0
    capsys.readouterr()
    file.write_text("\n".join([*lines[:4], *lines[5:]]))
    assert main(["audit", "verify", "--input", str(file)]) == 1
    assert capsys.readouterr().out.startswith("event 5 has been removed")


def test_an_export_goes_to_the_standard_output_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["audit", "--output", "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([json.loads(line) for line in lines]) == 8


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["audit", "--since", "soon"], "since"),
        (["audit", "--since", "2026"], "since"),
        (["audit", "--output", "/nowhere/trail"], "output"),
        (["audit", "verify", "--input", "/nowhere/trail"], "input"),
        (["archive", "--before", "soon"], "before"),
    ],
)
def test_what_makes_no_sense_is_named(
    words: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"jupyter aistack: {field}: ")


def test_what_is_old_is_moved_and_the_chain_still_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["archive", "--dry-run"]) == 0
    assert capsys.readouterr().out == "4 events would leave the ledger\n"
    assert main(["archive"]) == 0
    told, file = capsys.readouterr().out.splitlines()
    assert told == "archived: 4 events"
    assert Path(file).is_file()
    assert main(["archive"]) == 0
    assert capsys.readouterr().out == "nothing is that old\n"
    assert main(["audit", "verify"]) == 0
    assert capsys.readouterr().out.startswith("9 events are as they were written")
    Path(file).unlink()
    assert main(["audit", "verify"]) == 1
    assert f"the archive file {file} is missing" in capsys.readouterr().out
