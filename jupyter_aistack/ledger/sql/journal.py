"""How an SQLite ledger survives a crash: written ahead, or with a rollback journal.

Writing ahead lets readers go on while one writes, but needs memory that all its
processes share: not every file system has it, and none shares it between hosts.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import tempfile
import time
from pathlib import Path

from jupyter_aistack.system.mounts import mount_of
from jupyter_aistack.system.storage import storage_problem

BUSY_SECONDS = 15
_BRIEF_SECONDS = 1.0
"""How long others are waited for where only a ledger that is in no use can be changed."""
_PAUSE_SECONDS = 0.01
_WRITTEN_AHEAD = "wal"
_NO_SHARED_MEMORY = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR_SHMLOCK,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)
"""What SQLite says of a ledger that is written ahead, where that cannot be done."""

log = logging.getLogger(__name__)


class Journal:
    """The journal of one ledger, as far as this process may choose.

    Args:
        path: the ledger.
        is_network: whether other hosts may have the file system mounted; found out
            unless given.
    """

    def __init__(self, path: Path, *, is_network: bool | None = None) -> None:
        self._path = path
        self._is_network = is_network
        self._can_write_ahead: bool | None = None

    def prepare(self) -> None:
        """Make a ledger readable that was written ahead elsewhere and cannot be here.
        Comes before all connections: one that has failed to share memory goes on to.

        Raises:
            sqlite3.Error: it cannot be read or written at all.
        """
        try:
            with contextlib.closing(self._connect(BUSY_SECONDS)) as connection:
                _mode(connection)
        except sqlite3.OperationalError as error:
            is_unshared = error.sqlite_errorcode in _NO_SHARED_MEMORY
            if not is_unshared or not self._is_writable() or self._may_write_ahead():
                raise
            # Alone, SQLite needs no shared memory.
            with contextlib.closing(self._connect(_BRIEF_SECONDS)) as connection:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                _set_rollback(connection)

    def set_up(self, connection: sqlite3.Connection) -> None:
        """Make a new connection write as all others of this ledger do.

        Raises:
            sqlite3.Error: it cannot be read or written at all.
        """
        is_ahead = _mode(connection) == _WRITTEN_AHEAD
        if is_ahead and self._may_other_hosts_write():
            # Who has it open now would have to be waited for: another time.
            with contextlib.suppress(sqlite3.OperationalError):
                is_ahead = not _set_rollback(connection)
        elif not is_ahead and self._may_write_ahead():
            _set_written_ahead(connection)
            is_ahead = True
        connection.execute(f"PRAGMA synchronous={'NORMAL' if is_ahead else 'FULL'}")

    def _connect(self, busy_seconds: float) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=busy_seconds, isolation_level=None)

    def _is_writable(self) -> bool:
        return storage_problem(self._path.parent) is None

    def _may_write_ahead(self) -> bool:
        if self._can_write_ahead is None:
            is_possible = not self._may_other_hosts_write()
            self._can_write_ahead = is_possible and _can_write_ahead(self._path.parent)
            if not self._can_write_ahead:
                log.info(
                    "%s is kept with a rollback journal: its file system (%s) has no "
                    "memory that all its users share",
                    self._path,
                    mount_of(self._path) or "unknown",
                )
        return self._can_write_ahead

    def _may_other_hosts_write(self) -> bool:
        if self._is_network is None:
            mount = mount_of(self._path)
            self._is_network = mount is not None and mount.is_network
        return self._is_network


def _mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def _set_rollback(connection: sqlite3.Connection) -> bool:
    """Whether it is so now. Raises `sqlite3.OperationalError`: others have it open."""
    before = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute(f"PRAGMA busy_timeout={int(_BRIEF_SECONDS * 1000)}")
    try:
        chosen = connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
    finally:
        connection.execute(f"PRAGMA busy_timeout={before}")
    return bool(chosen == "delete")


def _set_written_ahead(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + BUSY_SECONDS
    while _mode(connection) != _WRITTEN_AHEAD:
        try:
            connection.execute(f"PRAGMA journal_mode={_WRITTEN_AHEAD}")
        except sqlite3.OperationalError as error:
            # The change needs the file alone and, unlike every other statement, does
            # not wait for it.
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)


def _can_write_ahead(folder: Path) -> bool:
    """Whether a database in this folder can be written ahead, tried with a new one: one
    that is in use would be left unreadable.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".aistack-", dir=folder) as name:
            return _is_ahead_in(Path(name, "probe"))
    except (OSError, sqlite3.Error):
        return False


def _is_ahead_in(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        chosen = connection.execute(f"PRAGMA journal_mode={_WRITTEN_AHEAD}").fetchone()
        connection.execute("CREATE TABLE probe (x)")
        return bool(chosen[0] == _WRITTEN_AHEAD)
