from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.tracking.artifacts import UPLOAD_BYTES_PER_SECOND, upload
from tests.fakes.list_store import ListStore


def test_an_upload_may_take_longer_the_larger_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "layer").mkdir(parents=True)
    for name in ("a", "layer/b"):
        with (folder / name).open("wb") as file:
            file.truncate(3 * UPLOAD_BYTES_PER_SECOND)
    (folder / "dangling").symlink_to("nowhere")
    assert upload(ListStore(), folder).patience_seconds() == 6.0
    assert upload(ListStore(), folder / "a").patience_seconds() == 3.0


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is no file or folder"):
        upload(ListStore(), tmp_path / "none")


def test_an_absolute_path_needs_no_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("content")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(FileNotFoundError):
        os.getcwd()
    assert upload(ListStore(), tmp_path / "a").patience_seconds() > 0
