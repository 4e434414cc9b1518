"""How the database is reached: engines and transactions."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from jupyter_aistack.system.sqlite_files import create_private
from jupyter_aistack.system.storage import StorageProblem, storage_problem

from .failures import DatabaseIsBusy, database_errors
from .journal import BUSY_SECONDS, Journal
from .url import is_sqlite


def create(url: URL, *, makes_folder: bool) -> sa.Engine:
    """An engine for `url`. For SQLite the file is made first, for its owner alone or
    its folder's group.

    Args:
        url: of the ledger.
        makes_folder: a folder that is not there is made too, and is no mistake.

    Raises:
        OSError, SQLAlchemyError, ImportError: to be explained by `explained`.
    """
    if not is_sqlite(url):
        from .postgresql import create_server_engine

        return create_server_engine(url)
    path = Path(str(url.database))
    if not makes_folder:
        path.parent.stat()
    create_private(path)
    _require_locks(path)
    journal = Journal(path)
    journal.prepare()
    engine = sa.create_engine(
        url,
        max_overflow=-1,
        pool_reset_on_return=None,
        pool_use_lifo=True,  # the connection used last knows most of what has been read
        paramstyle="named",
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
    )

    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        journal.set_up(connection)

    sa.event.listen(engine, "connect", set_up)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _require_locks(path: Path) -> None:
    """Find out at once what SQLite would wait for until it gives up: that the file
    system has no locks.
    """
    if storage_problem(path.parent) is StorageProblem.NO_LOCKS:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path))


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        "BEGIN IMMEDIATE"
    )  # only creating and migrating goes through SQLAlchemy, and it writes


def _begin(driver: Any, *, writes: bool, sqlite: bool) -> None:
    if sqlite:
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    else:
        # One moment for all statements of a reading transaction. Writers take the meta
        # row first and must see what was committed while they waited for it, which only
        # the weaker level shows.
        driver.begin("" if writes else "ISOLATION LEVEL REPEATABLE READ READ ONLY")


@contextmanager
def connection(engine: sa.Engine) -> Iterator[sa.PoolProxiedConnection]:
    """A driver's own connection for a while. What fails on it leaves it to nobody."""
    lent = engine.raw_connection()
    try:
        yield lent
    except BaseException:
        lent.invalidate()
        raise
    finally:
        lent.close()


@contextmanager
def pooled(engine: sa.Engine) -> Iterator[sa.PoolProxiedConnection]:
    """A driver's own connection for a transaction, which ends well or not."""
    lent = engine.raw_connection()
    try:
        yield lent
    finally:
        lent.close()


class WritingConnection:
    """The one connection that this process writes to a file through, kept for as long
    as it works.

    It alone can tell whether others have written: SQLite counts for each connection
    what all others have committed, those of the same process included.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._kept: sa.PoolProxiedConnection | None = None
        self._number = 0

    @contextmanager
    def lent(self) -> Iterator[sa.PoolProxiedConnection]:
        """The connection, to one thread at a time. When the database fails, it ends."""
        kept = self._kept
        if kept is None:
            kept = self._kept = self._engine.raw_connection()
            self._number += 1
        try:
            yield kept
        except BaseException as error:
            if isinstance(error, database_errors()) or not kept.is_valid:
                self._kept = None
                kept.invalidate()
            raise

    def stamp(self, lent: sa.PoolProxiedConnection) -> Hashable:
        """What is the same as long as others have written nothing at all."""
        driver: Any = lent.dbapi_connection
        (version,) = driver.execute("PRAGMA data_version").fetchone()
        return self._number, int(version)

    def close(self) -> None:
        """Give the connection back to those that are closed with the engine."""
        if self._kept is not None:
            self._kept.close()
        self._kept = None


@contextmanager
def transaction(
    lent: sa.PoolProxiedConnection, *, writes: bool, sqlite: bool
) -> Iterator[sa.PoolProxiedConnection]:
    """A transaction on the driver's own connection; its user commits, and what
    is not committed is undone.
    """
    try:
        _begin(lent.dbapi_connection, writes=writes, sqlite=sqlite)
        yield lent
    except BaseException:
        try:
            lent.rollback()
        except Exception:  # of no use any more, and the first error says why
            lent.invalidate()
        raise


@contextmanager
def alone(lock: threading.Lock, seconds: float = BUSY_SECONDS) -> Iterator[None]:
    """One writing thread at a time: SQLite would have the others sleep and try again,
    later and later.

    Raises:
        DatabaseIsBusy: as it would, after so many seconds.
    """
    if not lock.acquire(timeout=seconds):
        raise DatabaseIsBusy("database is locked")
    try:
        yield
    finally:
        lock.release()
