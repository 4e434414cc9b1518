"""Who may change a file is told by it and by all folders above it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_aistack.system.permissions import (
    closed_to_others,
    guarded,
    is_guarded,
)
from tests.fakes.user_processes import BOB, NEEDS_ROOT


@pytest.fixture
def owners() -> frozenset[int]:
    """Those who own what is above every temporary folder, and this user."""
    return frozenset({0, os.getuid()})


def test_a_file_is_as_safe_as_the_folders_above_it(
    tmp_path: Path, owners: frozenset[int]
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    file = folder / "jupyter_aistack_config.py"
    file.touch(mode=0o644)
    assert is_guarded(file, owners)
    file.chmod(0o664)
    assert not is_guarded(file, owners), "its group may write it"
    file.chmod(0o644)
    folder.chmod(0o777)
    assert not is_guarded(file, owners), "anybody may put another in its place"
    folder.chmod(0o755)
    assert not is_guarded(file, {4711}), "it is another's"
    assert not is_guarded(folder / "missing", owners)


def test_a_link_is_as_safe_as_what_it_leads_to(
    tmp_path: Path, owners: frozenset[int]
) -> None:
    open_file = tmp_path / "open"
    open_file.touch()
    open_file.chmod(0o666)
    link = tmp_path / "link"
    link.symlink_to(open_file)
    assert not is_guarded(link, owners)


def test_links_of_the_owners_are_followed(
    tmp_path: Path, owners: frozenset[int]
) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "real" / "file").touch(mode=0o644)
    (tmp_path / "beside").symlink_to("real")
    (tmp_path / "far").symlink_to(tmp_path / "beside" / ".." / "beside")
    (tmp_path / "circle").symlink_to("circle")
    assert is_guarded(tmp_path / "far" / "file", owners)
    assert not is_guarded(tmp_path / "circle", owners)


@NEEDS_ROOT
def test_who_has_made_a_link_may_have_it_lead_elsewhere(
    tmp_path: Path, owners: frozenset[int]
) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o644)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert is_guarded(link, owners)
    os.lchown(link, BOB, BOB)
    assert not is_guarded(link, owners)


def test_folders_without_such_files_say_nothing(
    tmp_path: Path, owners: frozenset[int]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "a.py").touch()
    (filled / "a.py").chmod(0o666)
    folders = [str(empty), str(filled)]
    assert guarded(folders, ("a.py",), owners) == [str(empty)]
    assert guarded(folders, ("b.py",), owners) == folders
    assert guarded(folders, ("a.py",), None) == folders


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's are their owner's alone."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_what_keeps_others_from_a_program_is_named(open_folder: Path) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o755)
    program = home / "python3.11"
    program.touch(mode=0o755)
    link = open_folder / "python3"
    link.symlink_to(program)
    assert closed_to_others(link) is None
    home.chmod(0o700)
    assert closed_to_others(link) == home
    home.chmod(0o755)
    program.chmod(0o750)
    assert closed_to_others(link) == program
    assert closed_to_others(home / "missing") == home / "missing"
