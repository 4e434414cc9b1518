"""What a database raises, as one sentence that says what to do, with a code for programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL

from jupyter_aistack.exceptions import LedgerUnavailable

from .failures import Failure, database_errors
from .server_failures import server_failure
from .sqlite_failures import sqlite_failure
from .url import is_sqlite, without_secrets


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turn what the database raises inside into one sentence.

    Raises:
        LedgerUnavailable: with the facts ``field``, ``ledger_url`` and ``problem``.
    """
    try:
        yield
    except database_errors() as error:
        shown = without_secrets(url)
        failure = failure_of(error, url)
        raise LedgerUnavailable(
            f"ledger_url: {shown} {failure.sentence}",
            field="ledger_url",
            ledger_url=shown,
            problem=failure.code,
        ) from error


def failure_of(error: BaseException, url: URL) -> Failure:
    """Why the ledger at `url` has failed."""
    if is_sqlite(url):
        return sqlite_failure(error, Path(str(url.database)))
    return server_failure(error, url)
