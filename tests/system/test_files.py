"""Files are replaced whole or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from jupyter_aistack.system.files import create_atomic, replacing, write_atomic


@pytest.mark.parametrize("content", ["größer", b"\x00\xff"])
def test_content_is_written(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    write_atomic(path, content)
    expected = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path, is_durable=True) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_in_place_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with replacing(path, is_durable=True) as part:
        part.write_text("new")
        assert not path.exists()
        assert not list(tmp_path.glob("*.json"))
    assert path.read_text() == "new"


def test_the_suffix_can_be_chosen(tmp_path: Path) -> None:
    with replacing(tmp_path / "plot.png", suffix=".png") as part:
        assert part.suffix == ".png"
        part.write_bytes(b"")


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "missing" / "file", "text")


def test_writers_at_once_leave_the_content_of_one(tmp_path: Path) -> None:
    path = tmp_path / "state"
    contents = [str(number) * 10_000 for number in range(8)]

    def write(content: str) -> None:
        for _ in range(20):
            write_atomic(path, content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            assert path.read_text() in contents
    for writer in writers:
        writer.join()
    assert path.read_text() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_is_no_file_that_another_could_have_put_there(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    with replacing(file) as first, replacing(file) as second:
        assert first != second
        assert first.is_file()
        assert not first.is_symlink()
        second.write_text("new")
        first.write_text("newer")
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def test_a_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    create_atomic(path, b"first")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        create_atomic(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
