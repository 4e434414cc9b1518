from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.tracking import fingerprint
from jupyter_aistack.tracking.fingerprint import (
    code_tags,
    data_fingerprint,
    notebook_tags,
)


@pytest.fixture
def frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"delay": [1.5, 2.5, -3.0], "carrier": ["AA", "UA", "B6"]})


def test_equal_frames_have_equal_digests_and_any_change_shows(frame):
    first = data_fingerprint("flights", frame)
    assert first == data_fingerprint("flights", frame.copy())
    changed = frame.copy()
    changed.loc[2, "delay"] = -3.1
    digests = {first.digest}
    for other in (
        changed,
        frame.rename(columns={"delay": "late"}),
        frame.iloc[:2],
        frame.astype({"delay": "float32"}),
    ):
        digests.add(data_fingerprint("flights", other).digest)
    assert len(digests) == 5
    assert (first.rows, list(first.schema), first.is_exact) == (
        3,
        ["delay", "carrier"],
        True,
    )
    assert len(first.digest) <= 36


def test_frames_with_lists_and_without_rows_are_taken(frame):
    pandas = pytest.importorskip("pandas")
    assert data_fingerprint("x", pandas.DataFrame({"a": [[1], [2]]})).rows == 2
    assert data_fingerprint("x", frame.iloc[:0]).rows == 0


def test_a_big_frame_is_hashed_in_part_and_says_so(
    frame, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fingerprint, "MAX_ROWS", 2)
    assert not data_fingerprint("x", frame).is_exact


def test_parquet_shape_comes_from_the_footers(frame, tmp_path: Path):
    pytest.importorskip("pyarrow")
    folder = tmp_path / "flights"
    folder.mkdir()
    for part in range(2):
        frame.to_parquet(folder / f"part.{part}.parquet")
    result = data_fingerprint("flights", folder)
    assert (result.rows, list(result.schema), result.is_exact) == (
        6,
        ["delay", "carrier"],
        True,
    )
    assert result == data_fingerprint("flights", str(folder))


def test_a_files_digest_is_its_content(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    first = data_fingerprint("x", path)
    os.utime(path, (1, 1))
    assert data_fingerprint("x", path).digest == first.digest
    path.write_text("a,b\n1,3\n")
    assert data_fingerprint("x", path).digest != first.digest
    assert (first.rows, first.size_bytes) == (None, 8)


def test_a_big_file_is_told_by_its_ends_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 10)
    path = tmp_path / "big.bin"
    path.write_bytes(b"x" * 100)
    first = data_fingerprint("x", path)
    assert not first.is_exact
    os.utime(path, (1, 1))
    assert data_fingerprint("x", path).digest != first.digest


def test_a_folder_of_too_many_files_is_told_in_part_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fingerprint, "MAX_FILES", 2)
    for name in "ab":
        (tmp_path / name).write_text(name)
    whole = data_fingerprint("folder", tmp_path)
    (tmp_path / "c").write_text("c")
    part = data_fingerprint("folder", tmp_path)
    assert (whole.is_exact, whole.size_bytes) == (True, 2)
    assert (part.is_exact, part.size_bytes) == (False, None)
    assert part.digest != whole.digest
    assert json.loads(part.source)["files"] == 3


def test_a_false_parquet_file_is_still_a_file(tmp_path: Path):
    path = tmp_path / "false.parquet"
    path.write_text("not parquet")
    assert data_fingerprint("x", path).rows is None


def test_a_dask_frame_is_told_by_its_recipe_and_not_computed(frame):
    dask_frames = pytest.importorskip("dask.dataframe")
    result = data_fingerprint("x", dask_frames.from_pandas(frame, npartitions=2))
    assert (result.rows, list(result.schema), result.is_exact) == (
        None,
        ["delay", "carrier"],
        False,
    )


@pytest.mark.parametrize("data", [3, None, {"a": 1}, [1, 2]])
def test_what_is_no_data_is_refused(data: object):
    with pytest.raises(InvalidRequest, match="data flights: expected a data frame"):
        data_fingerprint("flights", data)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InvalidRequest, match="there is no file or folder"):
        data_fingerprint("flights", tmp_path / "none")


def test_code_is_told_by_commit_notebook_and_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(
            ["git", *identity, *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    (tmp_path / "model.py").write_text("1")
    git("init", "-q")
    git("add", "model.py")
    git("commit", "-qm", "first")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ann/tour.ipynb")
    shell = SimpleNamespace(user_ns={"In": ["", "a = 1", "b = 2"]})
    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell)
    )
    tags = code_tags()
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["aistack.code.dirty"] == "false"
    assert (tags["aistack.notebook"], tags["aistack.code.cells"]) == ("tour.ipynb", "2")
    (tmp_path / "model.py").write_text("2")
    shell.user_ns["In"].append("c = 3")
    changed = code_tags()
    assert changed["aistack.code.dirty"] == "true"
    assert changed["aistack.code.cells_sha256"] != tags["aistack.code.cells_sha256"]


def test_a_renamed_notebook_is_told_by_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work = tmp_path / "work"
    work.mkdir()
    (work / "final.ipynb").touch()
    monkeypatch.setenv("JPY_SESSION_NAME", str(work / "Untitled.ipynb"))
    label = "work/final.ipynb"  # as the server has it, from its root
    assert notebook_tags(label) == {
        "mlflow.source.name": str(work / "final.ipynb"),
        "mlflow.source.type": "NOTEBOOK",
        "aistack.notebook": "final.ipynb",
    }
    assert code_tags(label)["aistack.notebook"] == "final.ipynb"


@pytest.mark.parametrize(
    ("label", "first_path", "path"),
    [
        ("", "/srv/a/b.ipynb", "/srv/a/b.ipynb"),
        ("a/b.ipynb", "/srv/a/b.ipynb", "/srv/a/b.ipynb"),
        ("a/new.ipynb", "/srv/a/b.ipynb", "a/new.ipynb"),
        ("a/new.ipynb", "", "a/new.ipynb"),
    ],
)
def test_what_is_known_of_a_notebooks_name_is_told(
    monkeypatch: pytest.MonkeyPatch, label: str, first_path: str, path: str
):
    monkeypatch.setenv("JPY_SESSION_NAME", first_path)
    assert notebook_tags(label)["mlflow.source.name"] == path


def test_a_script_is_no_notebook(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert notebook_tags() == {}


def test_outside_a_repository_no_commit_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert "mlflow.source.git.commit" not in code_tags()
