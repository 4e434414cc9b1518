"""What to tell people when the file of an SQLite ledger cannot be used."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from jupyter_aistack.ledger.storage_words import storage_sentence
from jupyter_aistack.system.storage import (
    StorageProblem,
    is_at_size_limit,
    is_read_only,
    nearest_folder,
    problem_of,
    storage_problem,
)

from .failures import BUSY, DAMAGED, Failure, driver_error

_PRIMARY = 0xFF
"""The part of SQLite's error codes that says the kind."""
_LOCK_ERRORS = frozenset(
    {
        sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
        sqlite3.SQLITE_IOERR_LOCK,
        sqlite3.SQLITE_IOERR_RDLOCK,
        sqlite3.SQLITE_IOERR_SHMLOCK,
        sqlite3.SQLITE_IOERR_UNLOCK,
    }
)
_OF_THE_PLACE = {
    sqlite3.SQLITE_CANTOPEN: StorageProblem.NOT_ALLOWED,
    sqlite3.SQLITE_IOERR: StorageProblem.FAILING,
    sqlite3.SQLITE_PERM: StorageProblem.NOT_ALLOWED,
    sqlite3.SQLITE_READONLY: StorageProblem.NOT_ALLOWED,
}
"""Errors that the place of the file causes, and which it is where nothing else shows."""


def sqlite_failure(error: BaseException, path: Path) -> Failure:
    """Why a ledger in a file has failed."""
    problem = _sqlite_problem(driver_error(error), path)
    if isinstance(problem, StorageProblem):
        return Failure(problem.value, storage_sentence(problem, path))
    return problem


def _sqlite_problem(error: BaseException, path: Path) -> StorageProblem | Failure:
    if os.path.isdir(path):
        return StorageProblem.IS_FOLDER
    if isinstance(error, OSError):
        return _os_problem(error, path)
    code = getattr(error, "sqlite_errorcode", None) or 0
    match code & _PRIMARY:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            # A file system without locks looks like a file that is locked for ever.
            is_lockless = storage_problem(path.parent) is StorageProblem.NO_LOCKS
            return StorageProblem.NO_LOCKS if is_lockless else BUSY
        case sqlite3.SQLITE_FULL:
            return StorageProblem.FULL
        case sqlite3.SQLITE_PROTOCOL:
            return StorageProblem.NO_LOCKS
        case kind if kind in _OF_THE_PLACE:
            is_lockless = code in _LOCK_ERRORS
            return _place_problem(path) or (
                StorageProblem.NO_LOCKS if is_lockless else _OF_THE_PLACE[kind]
            )
    return DAMAGED


def _os_problem(error: OSError, path: Path) -> StorageProblem:
    problem = problem_of(error)
    is_unmade = problem in (StorageProblem.NOT_ALLOWED, StorageProblem.NO_FOLDER)
    if is_unmade and is_read_only(nearest_folder(path)):
        return StorageProblem.READ_ONLY
    return problem


def _place_problem(path: Path) -> StorageProblem | None:
    """What is wrong with the place of a file, as far as it shows now."""
    if is_at_size_limit(path):
        return StorageProblem.TOO_LARGE
    return storage_problem(path.parent)
