"""What keeps a file from being written. Real file systems without space, locks or
rights are in `tests/ledger/sql/test_sqlite_failures.py`.
"""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from jupyter_aistack.system.storage import (
    StorageProblem,
    is_at_size_limit,
    nearest_folder,
    problem_of,
    storage_problem,
)


def test_a_good_folder_has_no_problem_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    assert storage_problem(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_or_a_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert storage_problem(file) is StorageProblem.NOT_A_FOLDER
    assert storage_problem(tmp_path / "missing") is StorageProblem.NO_FOLDER


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (errno.EACCES, StorageProblem.NOT_ALLOWED),
        (errno.EROFS, StorageProblem.READ_ONLY),
        (errno.ENOSPC, StorageProblem.FULL),
        (errno.EDQUOT, StorageProblem.OVER_QUOTA),
        (errno.ENOLCK, StorageProblem.NO_LOCKS),
        (errno.EIO, StorageProblem.FAILING),
        (errno.EMFILE, StorageProblem.UNKNOWN),
    ],
)
def test_errors_of_the_system_have_names(number: int, problem: StorageProblem) -> None:
    assert problem_of(OSError(number, os.strerror(number))) is problem


def test_a_file_near_the_limit_of_sizes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))
    limits = {"value": resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits["value"], 0))
    assert not is_at_size_limit(file)
    limits["value"] = 200_000
    assert not is_at_size_limit(file)
    limits["value"] = 100_000
    assert is_at_size_limit(file)


def test_the_nearest_folder_is_the_first_that_is_there(tmp_path: Path) -> None:
    assert nearest_folder(tmp_path / "a" / "b" / "file") == tmp_path
