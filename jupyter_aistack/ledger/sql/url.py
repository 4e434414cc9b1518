"""The URLs of ledgers in databases."""

from __future__ import annotations

import os

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from jupyter_aistack.exceptions import LedgerUnavailable

_ALLOWED = (
    "write sqlite:///path/to/ledger.sqlite or postgresql+psycopg://user@server/database"
)
_DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql+psycopg")

Identity = tuple[int, int, int]


def parse_url(text: str) -> URL:
    """The URL of a ledger, checked before anything is opened.

    Raises:
        LedgerUnavailable: it is not a URL, of a database we do not support, or has
            options for a file.
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
    if url.drivername not in _DRIVERS:
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
    # The rest of such a path would be dropped in silence, and another file be opened.
    if is_sqlite(url) and "?" in text:
        raise LedgerUnavailable(
            "ledger_url: a ledger in a file takes no options; where its path has a "
            "question mark write %3F",
            field="ledger_url",
        )
    return url


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def without_secrets(url: URL) -> str:
    """The URL without password and options."""
    return url._replace(password=None, query={}).render_as_string()  # type: ignore[arg-type]


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
