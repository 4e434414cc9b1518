"""Why a ledger in a database cannot be used, and what databases raise then."""

from __future__ import annotations

import sqlite3
import sys
from typing import NamedTuple

import sqlalchemy as sa


class Failure(NamedTuple):
    """Why a ledger cannot be used.

    Attributes:
        code: for programs.
        sentence: for people; it goes on after the ledger's URL.
    """

    code: str
    sentence: str


BUSY = Failure("busy", "is held by another process; try again in a moment")
DAMAGED = Failure(
    "damaged",
    "is damaged or not a ledger; move it away and a new one is made, or restore it "
    "from a copy",
)


class DatabaseIsBusy(sqlite3.OperationalError):
    """What SQLite raises once it has waited long enough."""

    sqlite_errorcode = sqlite3.SQLITE_BUSY


def database_errors() -> tuple[type[BaseException], ...]:
    """Whatever a database may raise; a driver that is not installed raises nothing."""
    psycopg = sys.modules.get("psycopg")
    drivers = (sqlite3.Error,) if psycopg is None else (sqlite3.Error, psycopg.Error)
    return (sa.exc.SQLAlchemyError, OSError, ImportError, *drivers)


def driver_error(error: BaseException) -> BaseException:
    """What the driver has raised, where SQLAlchemy has wrapped it."""
    return getattr(error, "orig", None) or error
