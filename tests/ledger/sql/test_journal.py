"""A ledger is written ahead where that is possible, and with a rollback journal
elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_aistack.core.model.request import Request
from jupyter_aistack.ledger.opening import open_ledger
from jupyter_aistack.ledger.sql.journal import Journal
from tests.fakes.storage.host import environment_without, write_ledger

Wish = Callable[..., Request]

UNSHARED = [errno.ENODEV, errno.EINVAL, errno.EIO, errno.EOPNOTSUPP, errno.EACCES]


def journal_of(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


@pytest.mark.service
@pytest.mark.parametrize("error", UNSHARED)
def test_without_shared_memory_a_ledger_has_a_rollback_journal(
    tmp_path: Path, error: int
) -> None:
    path = tmp_path / "ledger.sqlite"
    lacking = environment_without(tmp_path, shared=error)
    url = f"sqlite:///{path}"
    assert write_ledger(url, "r-1", **lacking) == {"requests": ["r-1"]}
    assert journal_of(path) == "delete"
    assert write_ledger(url, "r-2", **lacking) == {"requests": ["r-1", "r-2"]}
    assert list(tmp_path.iterdir()) == [path], "nothing is left of what was tried"


@pytest.mark.service
def test_a_ledger_written_ahead_elsewhere_is_read_without_shared_memory(
    tmp_path: Path, wish: Wish
) -> None:
    path = tmp_path / "ledger.sqlite"
    url = f"sqlite:///{path}"
    ledger = open_ledger(url)
    ledger.submit(wish("r-1"))
    assert journal_of(path) == "wal"
    lacking = environment_without(tmp_path, shared=errno.ENODEV)
    held = write_ledger(url, "r-2", **lacking)
    assert held["problem"] == "busy", "it is in use by one that shares"
    ledger.close()
    assert write_ledger(url, "r-2", **lacking) == {"requests": ["r-1", "r-2"]}
    assert journal_of(path) == "delete"


def test_what_several_hosts_may_write_is_not_written_ahead(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    journal = Journal(path, is_network=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
    for _ in range(2):
        opened = sqlite3.connect(path, isolation_level=None)
        journal.set_up(opened)
        assert opened.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert opened.execute("PRAGMA synchronous").fetchone() == (2,), "full"
        opened.close()


def test_one_that_others_write_ahead_now_is_left_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("CREATE TABLE t (x)")
    opened = sqlite3.connect(path, isolation_level=None, timeout=0.01)
    Journal(path, is_network=True).set_up(opened)
    assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    opened.close()
    other.close()
