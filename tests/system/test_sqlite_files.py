"""SQLite files: URLs that name what they were made from, and modes that keep others
out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from jupyter_aistack.system.sqlite_files import (
    create_private,
    sqlite_path,
    sqlite_url,
)

NAMES = ["plain", "a b", "a?b=1", "a#b", "50%", "a%41b", "ünder", "a@b:c"]


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask that would let everybody read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", NAMES)
def test_a_url_names_the_file_it_was_made_from(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "x.db"
    assert sqlite_path(sqlite_url(path)) == path
    assert make_url(sqlite_url(path)).database == str(path)


def test_sqlalchemy_opens_the_very_file(tmp_path: Path) -> None:
    path = tmp_path / "a?b #c 50%41" / "x.db"
    create_private(path)
    engine = create_engine(sqlite_url(path))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a)"))
    engine.dispose()
    assert path.stat().st_size > 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["a?b #c 50%41"]


@pytest.mark.parametrize(
    "url", ["postgresql://a@b/c", "sqlite://", "sqlite:///:memory:", "http://x/y"]
)
def test_what_is_no_file_has_no_path(url: str) -> None:
    assert sqlite_path(url) is None


def test_options_of_a_url_are_no_part_of_its_path() -> None:
    assert sqlite_path("sqlite:////srv/x.db?timeout=3") == Path("/srv/x.db")


@pytest.mark.usefixtures("open_umask")
def test_a_new_database_and_its_folder_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.db"
    create_private(path)
    assert (mode_of(path.parent), mode_of(path)) == (0o700, 0o600)


@pytest.mark.usefixtures("open_umask")
def test_in_a_shared_folder_the_group_may_read_and_write(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o2770)
    create_private(folder / "x.db")
    assert mode_of(folder / "x.db") == 0o660


def test_a_database_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_text("content")
    path.chmod(0o644)
    create_private(path)
    assert (path.read_text(), mode_of(path)) == ("content", 0o644)


def test_no_file_is_made_where_a_link_leads(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "x.db").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        create_private(tmp_path / "x.db")
    assert not target.exists()
