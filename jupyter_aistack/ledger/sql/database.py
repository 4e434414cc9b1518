"""How the database is reached: engines and transactions."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from jupyter_aistack.system.sqlite_files import create_private
from jupyter_aistack.system.storage import StorageProblem, storage_problem

from .failures import DatabaseIsBusy
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
    """The driver's own connection to a server, for statements that are each their own
    transaction.
    """
    lent = engine.raw_connection()
    try:
        yield lent
    except BaseException:
        lent.invalidate()
        raise
    finally:
        lent.close()


@contextmanager
def transaction(
    engine: sa.Engine, *, writes: bool
) -> Iterator[sa.PoolProxiedConnection]:
    """A transaction on the driver's own connection; its user commits, and what
    is not committed is undone.
    """
    lent = engine.raw_connection()
    try:
        _begin(
            lent.dbapi_connection, writes=writes, sqlite=engine.dialect.name == "sqlite"
        )
        yield lent
    except BaseException:
        try:
            lent.rollback()
        except Exception:  # of no use any more, and the first error says why
            lent.invalidate()
        raise
    finally:
        lent.close()


@contextmanager
def alone(lock: threading.Lock) -> Iterator[None]:
    """One writing thread at a time: SQLite would have the others sleep and try again,
    later and later.

    Raises:
        sqlite3.OperationalError: as it would.
    """
    if not lock.acquire(timeout=BUSY_SECONDS):
        raise DatabaseIsBusy("database is locked")
    try:
        yield
    finally:
        lock.release()
