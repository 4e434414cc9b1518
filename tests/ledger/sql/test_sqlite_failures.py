"""What is said of a ledger whose file system lacks something: by name, with what to do,
on real file systems where that can be had.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_aistack.ledger.sql.explained import failure_of
from jupyter_aistack.ledger.sql.url import parse_url
from tests.fakes.storage.host import environment_without, write_ledger

NOBODY = 65534
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can mount, and act as other users"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def mounting() -> None:
    """Skips where not even root may mount."""
    tried = ["unshare", "--mount", "true"]
    if shutil.which("unshare") is None or subprocess.run(tried, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system")


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.mark.service
@pytest.mark.parametrize(
    ("call", "error", "problem", "sentence"),
    [
        (
            "lock",
            errno.ENOLCK,
            "no-locks",
            "has no file locks; mount it with locks, or",
        ),
        ("lock", errno.EIO, "no-locks", "has no file locks"),
        ("lock", errno.EINVAL, "no-locks", "has no file locks"),
        ("lock", errno.EOPNOTSUPP, "no-locks", "has no file locks"),
        ("write", errno.ENOSPC, "full", "because the disk is full ("),
        ("write", errno.EDQUOT, "over-quota", "disk quota of this user is used up"),
        ("write", errno.EIO, "failing", "reports input or output errors"),
    ],
)
def test_what_a_file_system_lacks_is_named(
    tmp_path: Path, call: str, error: int, problem: str, sentence: str
) -> None:
    path = tmp_path / "ledger.sqlite"
    lacking = environment_without(tmp_path, **{call: error})
    told = write_ledger(url_of(path), **lacking)
    assert told["problem"] == problem
    assert told["message"].startswith(f"ledger_url: sqlite:///{path} cannot be ")
    assert sentence in told["message"]
    assert told["message"].endswith("name a file elsewhere in AISTACK_LEDGER")
    assert write_ledger(url_of(path)) == {"requests": ["r-1"]}, (
        "it works once that ends"
    )


OPENED = """
import sys
from jupyter_aistack.ledger.sql import database
from jupyter_aistack.ledger.sql.url import parse_url
try:
    database.create(parse_url(sys.argv[1]), makes_folder=False)
except OSError as error:
    print(error.errno, "sqlite3.connect" in seen)
"""
WATCHED = "import sys; seen = set(); sys.addaudithook(lambda event, _: seen.add(event))"


@pytest.mark.service
def test_that_there_are_no_locks_is_found_before_sqlite_waits_for_one(
    tmp_path: Path,
) -> None:
    lacking = environment_without(tmp_path, lock=errno.ENOLCK)
    opened = subprocess.run(
        [sys.executable, "-c", WATCHED + OPENED, url_of(tmp_path / "ledger.sqlite")],
        env={**os.environ, **lacking},
        capture_output=True,
        text=True,
        check=True,
    )
    assert opened.stdout.split() == [str(errno.ENOLCK), "False"]


@pytest.mark.service
def test_a_limit_of_file_sizes_is_named(tmp_path: Path) -> None:
    told = write_ledger(url_of(tmp_path / "ledger.sqlite"), FAKE_STORAGE_LIMIT="20000")
    assert told["problem"] == "too-large"
    assert told["message"].endswith("raise the limit (ulimit -f)")


@needs_root
@pytest.mark.service
@pytest.mark.usefixtures("mounting")
def test_a_full_disk_is_named_with_its_mount(folder: Path) -> None:
    disk = f"mount -t tmpfs -o size=96k tmpfs {folder}"
    told = write_ledger(url_of(folder / "ledger.sqlite"), mounting=disk)
    assert told["problem"] == "full"
    assert f"because the disk is full (tmpfs at {folder}); free some" in told["message"]


@needs_root
@pytest.mark.service
@pytest.mark.usefixtures("mounting")
def test_a_file_system_that_is_read_only_is_named_with_its_mount(folder: Path) -> None:
    disk = f"mount -t tmpfs -o ro tmpfs {folder}"
    told = write_ledger(url_of(folder / "new" / "ledger.sqlite"), mounting=disk)
    assert told["problem"] == "read-only"
    assert f"the file system (tmpfs at {folder}) is read-only" in told["message"]

    url = url_of(folder / "ledger.sqlite")
    assert write_ledger(url) == {"requests": ["r-1"]}
    later = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    assert write_ledger(url, mounting=later)["problem"] == "read-only"


@needs_root
@pytest.mark.service
@pytest.mark.parametrize(("mode", "name"), [(0o700, ""), (0o700, "in/"), (0o755, "")])
def test_a_folder_that_one_may_not_enter_or_write_gets_one_sentence(
    folder: Path, mode: int, name: str
) -> None:
    url = url_of(folder / name / "ledger.sqlite")
    (folder / name).mkdir(mode=0o700, exist_ok=True)
    assert write_ledger(url) == {"requests": ["r-1"]}
    folder.chmod(mode)
    told = write_ledger(url, "r-2", user=NOBODY)
    assert told["problem"] == "not-allowed"
    assert "cannot be written by this user" in told["message"]
    assert "join the group that may write there" in told["message"]


@needs_root
@pytest.mark.service
def test_the_ledger_of_a_group_is_closed_to_others_in_one_sentence(
    folder: Path,
) -> None:
    folder.chmod(0o2770)
    url = url_of(folder / "ledger.sqlite")
    assert write_ledger(url) == {"requests": ["r-1"]}
    assert write_ledger(url, user=NOBODY)["problem"] == "not-allowed"


def test_no_file_is_made_through_a_link(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    target = tmp_path / "elsewhere"
    path.symlink_to(target)
    told = write_ledger(url_of(path))
    assert told["problem"] == "link"
    assert told["message"].endswith("name the file itself")
    assert not target.exists()


@needs_root
def test_a_link_that_another_user_has_made_is_not_followed(folder: Path) -> None:
    path = folder / "ledger.sqlite"
    target = folder / "notes"
    target.touch()
    path.symlink_to(target)
    os.lchown(path, NOBODY, NOBODY)
    assert write_ledger(url_of(path))["problem"] == "link"
    assert target.read_bytes() == b""
    os.lchown(path, 0, 0)
    assert write_ledger(url_of(path)) == {"requests": ["r-1"]}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "busy"),
        (sqlite3.SQLITE_LOCKED, "busy"),
        (sqlite3.SQLITE_FULL, "full"),
        (sqlite3.SQLITE_PROTOCOL, "no-locks"),
        (sqlite3.SQLITE_IOERR_RDLOCK, "no-locks"),
        (sqlite3.SQLITE_IOERR_FSYNC, "failing"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "not-allowed"),
        (sqlite3.SQLITE_CORRUPT, "damaged"),
        (sqlite3.SQLITE_NOTADB, "damaged"),
        (sqlite3.SQLITE_ERROR, "damaged"),
    ],
)
def test_errors_of_sqlite_are_told_apart_by_code(
    tmp_path: Path, code: int, problem: str
) -> None:
    error = sqlite3.OperationalError("the database is locked, full and read-only")
    error.sqlite_errorcode = code
    url = parse_url(url_of(tmp_path / "ledger.sqlite"))
    assert failure_of(error, url).code == problem
