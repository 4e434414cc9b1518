from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from jupyter_aistack.broker.stray_record import StrayRecord
from jupyter_aistack.core.enforcement.strays import Sighting

SIGHTINGS = {
    ("GPU-0", 4711, 1234.56): Sighting(seen=100.5, is_told=True, asked=700.0),
    ("GPU-1", 12, 7.0): Sighting(seen=3.0),
}


def test_what_is_written_is_read_again_by_the_same_user(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "strays.json"
    StrayRecord(file).write(SIGHTINGS)
    assert StrayRecord(file).read() == SIGHTINGS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_file_nothing_is_kept() -> None:
    record = StrayRecord()
    record.write(SIGHTINGS)
    assert record.read() == {}


def test_another_run_of_the_machine_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "strays.json"
    StrayRecord(file).write(SIGHTINGS)
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "boot_id": "another"}))
    assert StrayRecord(file).read() == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot_id": 1}', "null"])
def test_what_cannot_be_read_is_as_if_it_were_not_there(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "strays.json"
    file.write_text(content)
    assert StrayRecord(file).read() == {}


def test_a_file_that_others_could_have_written_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "strays.json"
    StrayRecord(file).write(SIGHTINGS)
    file.chmod(0o660)
    assert StrayRecord(file).read() == {}


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    StrayRecord(tmp_path / "file" / "strays.json").write(SIGHTINGS)
