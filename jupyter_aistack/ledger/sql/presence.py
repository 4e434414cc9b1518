"""How a process shows to others of its ledger that it lives, where they cannot see it.

It holds a lock that the system takes from it when it dies, and that it keeps while it
is stopped: of a file beside an SQLite ledger, or of its session with PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from jupyter_aistack.core.model.process import Liveness, ProcessIdentity
from jupyter_aistack.system.sqlite_files import refuse_foreign_link

try:
    import fcntl
except ImportError:  # Windows: nobody shows there that it lives
    fcntl = None  # type: ignore[assignment]

FOLDER = ".presence"
"""What is added to the name of an SQLite ledger for the folder of its locks."""
TIDY_SECONDS = 24 * 3600.0
"""A file whose process has been gone for so long is taken away."""
_PERMISSIONS = 0o777
_READABLE = 0o444


class Presence(ABC):
    """The locks by which the processes of one ledger are known to live."""

    @abstractmethod
    def hold(self, process: ProcessIdentity) -> None:
        """Show that this process lives, until it ends. Holding twice is holding once.

        Raises:
            OSError, SQLAlchemyError: there are no such locks here.
        """

    @abstractmethod
    def liveness(self, process: ProcessIdentity) -> Liveness:
        """Whether a process lives; unknown where it has never held its lock."""

    @abstractmethod
    def has_witness(self, process: ProcessIdentity) -> bool:
        """Whether any process lives here that can see `process`."""

    @abstractmethod
    def drop(self) -> None:
        """Show it no longer, without a claim that the process has ended."""

    @abstractmethod
    def forget(self) -> None:
        """In a forked child: leave to the parent what is the parent's."""


class FilePresence(Presence):
    """Locks of files, one for each process.

    Args:
        ledger: the SQLite file, whose mode the locks take.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._folder = ledger.with_name(ledger.name + FOLDER)
        self._held: IO[bytes] | None = None
        self._name = ""

    def hold(self, process: ProcessIdentity) -> None:
        name = _file_name(process)
        if fcntl is None or (self._held is not None and self._name == name):
            return
        self.drop()
        mode = self._ledger.stat().st_mode & _PERMISSIONS
        self._make_folder(mode)
        self._tidy()
        descriptor = os.open(
            self._folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, mode
        )
        held = os.fdopen(descriptor, "r+b")
        with contextlib.suppress(PermissionError):  # most umasks take the group's part
            os.fchmod(descriptor, mode)
        try:
            # Shared: a process may have opened the ledger more than once.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError:
            held.close()
            raise
        self._held = held
        self._name = name

    def _make_folder(self, mode: int) -> None:
        """As open as the ledger: who may read that may enter this."""
        refuse_foreign_link(self._folder)
        if self._folder.is_dir():
            return
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(0o700)
            inherited = self._folder.stat().st_mode & stat.S_ISGID
            self._folder.chmod(inherited | mode | (mode & _READABLE) >> 2)

    def _tidy(self) -> None:
        for path in self._folder.glob("*.lock"):
            with contextlib.suppress(OSError):
                is_old = time.time() - path.stat().st_mtime > TIDY_SECONDS
                if is_old and _is_free(path):
                    path.unlink()

    def liveness(self, process: ProcessIdentity) -> Liveness:
        name = _file_name(process)
        if self._held is not None and self._name == name:
            return Liveness.ALIVE
        try:
            is_free = _is_free(self._folder / name)
        except OSError:
            return Liveness.UNKNOWN
        return Liveness.GONE if is_free else Liveness.ALIVE

    def has_witness(self, process: ProcessIdentity) -> bool:
        group = _group_of(process)
        if self._held is not None and self._name.startswith(group):
            return True
        for path in self._folder.glob(f"{group}*.lock"):
            with contextlib.suppress(OSError):
                if not _is_free(path):
                    return True
        return False

    def drop(self) -> None:
        if self._held is None:
            return
        # Taken away before it is let go of: a file without its lock says "gone". It
        # stays for another opening of the ledger in this process.
        with contextlib.suppress(OSError):
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self._folder / self._name).unlink()
        self.forget()

    def forget(self) -> None:
        # Closed only: an unlock would be the parent's too, who shares the open file.
        if self._held is not None:
            self._held.close()
        self._held = None
        self._name = ""


def _group_of(process: ProcessIdentity) -> str:
    """What all processes that can see one another have in common."""
    return f"{process.boot_id}.{process.pid_namespace or 0}."


def _member_of(process: ProcessIdentity) -> str:
    started = "" if process.started is None else f"{process.started:.2f}"
    return f"{process.pid}-{started}"


def _file_name(process: ProcessIdentity) -> str:
    return f"{_group_of(process)}{_member_of(process)}.lock"


def _is_free(path: Path) -> bool:
    """Whether nobody holds the lock of a file. Raises `OSError`: it cannot be told."""
    if fcntl is None:
        raise OSError("no file locks here")
    # Nobody who may write there leads or holds up those who look.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        try:
            # Two that look at once may take each other for the holder; the next look
            # corrects that, and until then nothing is freed.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class SessionPresence(Presence):
    """Advisory locks of PostgreSQL, each held by a connection of its own.

    A lock that is free proves nothing: a connection may break while its process lives.

    Args:
        connect: a connection to the ledger, on which no transaction is begun.
    """

    def __init__(self, connect: Callable[[], sa.PoolProxiedConnection]) -> None:
        self._connect = connect
        self._session: sa.PoolProxiedConnection | None = None
        self._key: tuple[int, int] | None = None

    def hold(self, process: ProcessIdentity) -> None:
        key = _keys_of(process)
        if self._key == key and self._is_connected():
            return
        self.drop()
        session = self._connect()
        try:
            _ask(session, _HOLD, key)
        except BaseException:
            session.close()
            raise
        self._session = session
        self._key = key

    def _is_connected(self) -> bool:
        session = self._session
        driver: Any = None if session is None else session.dbapi_connection
        return driver is not None and not driver.closed and driver.is_unasked()

    def liveness(self, process: ProcessIdentity) -> Liveness:
        is_held = self._is_any_held(_IS_MEMBER_HELD, _keys_of(process))
        return Liveness.ALIVE if is_held else Liveness.UNKNOWN

    def has_witness(self, process: ProcessIdentity) -> bool:
        group, _ = _keys_of(process)
        return self._is_any_held(_IS_GROUP_HELD, (group,))

    def _is_any_held(self, query: str, numbers: tuple[int, ...]) -> bool:
        lent = self._connect()
        try:
            return bool(_ask(lent, query, numbers))
        finally:
            lent.close()

    def drop(self) -> None:
        session = self._session
        self._session = None
        self._key = None
        if session is not None:
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                session.invalidate()  # the server lets go of its locks
            session.close()

    def forget(self) -> None:
        # Closed here as a file only, and kept: what ends the connection properly would
        # end the parent's.
        if self._session is not None:
            driver: Any = self._session.dbapi_connection
            os.close(driver.fileno())
            _of_parents.append(self._session)
        self._session = None
        self._key = None


_of_parents: list[sa.PoolProxiedConnection] = []
"""Connections that were open when this process was forked."""

_HOLD = "SELECT pg_advisory_lock_shared(%s, %s)"
_IS_GROUP_HELD = (
    "SELECT 1 FROM pg_catalog.pg_locks"
    " WHERE locktype = 'advisory' AND granted AND classid = %s"
)
_IS_MEMBER_HELD = f"{_IS_GROUP_HELD} AND objid = %s"


def _ask(
    lent: sa.PoolProxiedConnection, query: str, numbers: tuple[int, ...]
) -> list[Any]:
    """The rows of a query of its own, in one round trip."""
    driver: Any = lent.dbapi_connection
    rows: list[Any] = driver.execute(query, numbers).fetchall()
    return rows


def _keys_of(process: ProcessIdentity) -> tuple[int, int]:
    """The two numbers of a process's lock: of those that can see one another, and its
    own.
    """
    return (_number(_group_of(process)), _number(_member_of(process)))


def _number(text: str) -> int:
    """31 bits of a text: they are the same for PostgreSQL whether it takes them with a
    sign or shows them without.
    """
    return zlib.crc32(text.encode()) & 0x7FFFFFFF
