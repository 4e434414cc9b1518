"""How the database is reached, and what to tell people when it is not."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.system.sqlite_files import create_private

_BUSY_SECONDS = 15
_CONNECT_SECONDS = 5
_ALLOWED = (
    "write sqlite:///path/to/ledger.sqlite or postgresql+psycopg://user@server/database"
)


def parse_url(text: str) -> URL:
    """The URL of a ledger, checked before anything is opened.

    Raises:
        LedgerUnavailable: it is not a URL, or of a database we do not support.
    """
    try:
        url = make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        # The text is not shown: it may hold a password that could not be recognized.
        raise LedgerUnavailable(
            f"ledger_url: this is not a database URL; {_ALLOWED}", field="ledger_url"
        ) from None
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise LedgerUnavailable(
            f"ledger_url: {url.drivername} is not supported; {_ALLOWED}",
            field="ledger_url",
        )
    # SQLite would open "file:..." by rules of its own, at another place than the path
    # checked here.
    if is_sqlite(url) and (
        url.database in (None, "", ":memory:") or str(url.database).startswith("file:")
    ):
        raise LedgerUnavailable(
            f"ledger_url: {without_secrets(url)} names no file; {_ALLOWED}",
            field="ledger_url",
        )
    return url


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def without_secrets(url: URL) -> str:
    """The URL without password and options."""
    return url._replace(password=None, query={}).render_as_string()  # type: ignore[arg-type]


Identity = tuple[int, int, int]


def identity(url: URL) -> Identity:
    """This process and the file behind `url`; connections are of use only while neither
    has changed.

    A ledger that is moved away while it is open would otherwise live on unseen, beside
    its successor.
    """
    try:
        status = os.stat(str(url.database)) if is_sqlite(url) else None
    except OSError:
        status = None
    return (
        (os.getpid(), status.st_dev, status.st_ino) if status else (os.getpid(), 0, 0)
    )


def create(url: URL) -> sa.Engine:
    """An engine for `url`. For SQLite the file is made first, for its owner alone or
    its folder's group.

    Raises:
        OSError, SQLAlchemyError, ImportError: to be explained by `explained`.
    """
    if not is_sqlite(url):
        arguments: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
        return sa.create_engine(
            url, pool_pre_ping=True, max_overflow=-1, connect_args=arguments
        )
    create_private(Path(str(url.database)))
    arguments = {"timeout": _BUSY_SECONDS, "isolation_level": None}
    engine = sa.create_engine(
        url,
        max_overflow=-1,
        pool_reset_on_return=None,
        pool_use_lifo=True,  # the connection used last knows most of what has been read
        paramstyle="named",
        connect_args=arguments,
    )
    sa.event.listen(engine, "connect", _configure_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    deadline = time.monotonic() + _BUSY_SECONDS
    while not _is_in_wal_mode(connection):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # The change needs the file alone and, unlike every other statement, does
            # not wait for it.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous=NORMAL")


def _is_in_wal_mode(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        "BEGIN IMMEDIATE"
    )  # only creating and migrating goes through SQLAlchemy, and it writes


def _begin(driver: Any, *, writes: bool, sqlite: bool) -> None:
    if sqlite:
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    elif not writes:
        # One moment for all statements of a reading transaction. Writers take the meta
        # row first and must see what was committed while they waited for it, which only
        # the weaker level shows.
        driver.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


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
    if not lock.acquire(timeout=_BUSY_SECONDS):
        raise sqlite3.OperationalError("database is locked")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turn what the database raises inside into one sentence.

    Raises:
        LedgerUnavailable: with the facts ``field`` and ``ledger_url``.
    """
    try:
        yield
    except _errors() as error:
        shown = without_secrets(url)
        why = (
            _why_sqlite(error, str(url.database))
            if is_sqlite(url)
            else _why_server(error)
        )
        raise LedgerUnavailable(
            f"ledger_url: {shown} {why}", field="ledger_url", ledger_url=shown
        ) from error


def _errors() -> tuple[type[BaseException], ...]:
    """Whatever a database may raise; a driver that is not installed raises nothing."""
    psycopg = sys.modules.get("psycopg")
    drivers = (sqlite3.Error,) if psycopg is None else (sqlite3.Error, psycopg.Error)
    return (sa.exc.SQLAlchemyError, OSError, ImportError, *drivers)


def _why_sqlite(error: BaseException, path: str) -> str:
    text = str(getattr(error, "orig", None) or error).lower()
    if "locked" in text or "busy" in text:
        return "is held by another process; try again in a moment"
    if "full" in text or "no space" in text:
        return "cannot be written because the disk is full; free some space"
    if Path(path).is_dir():
        return "is a directory; name a file in it"
    if any(
        sign in text
        for sign in (
            "unable to open",
            "readonly",
            "read-only",
            "permission",
            "errno",
            "disk i/o",
        )
    ):
        return "cannot be written by this user; make its folder writable or name another file"
    return "is damaged or not a ledger; move it away and a new one is made, or restore it from a copy"


def _why_server(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return (
            "needs the package psycopg; install psycopg[binary] or name an SQLite file"
        )
    lost = (
        sa.exc.OperationalError,
        *(kind for kind in type(error).__mro__ if kind.__name__ == "OperationalError"),
    )
    if isinstance(error, lost):
        return "does not answer or refuses the login; start the server, or correct the address, user or password"
    return "does not hold a usable ledger; check that the user may create tables in it"
