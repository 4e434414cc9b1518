"""The ledger in a database: one SQLite file, or PostgreSQL for many servers.

Every write transaction holds the ledger's only write lock from its first statement
(SQLite: ``BEGIN IMMEDIATE``; PostgreSQL: the row of ``aistack_meta``), so writes happen
one after another and what a transaction has read stays true until it commits.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL

from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.process import Liveness, ProcessIdentity
from jupyter_aistack.ledger.rows import Rows
from jupyter_aistack.ledger.state import LedgerState
from jupyter_aistack.ledger.transactional import TransactionalLedger
from jupyter_aistack.ledger.transactions import REFUSALS, within

from . import database, schema
from .doubt import Doubt
from .explained import explained
from .fork_gate import ForkGate
from .known import KnownState
from .presence import FilePresence, Presence, SessionPresence
from .rows import SQLRows
from .salvage import RowReader
from .statements import statements_for
from .transaction import OpenDatabase
from .url import identity, is_sqlite, parse_url, without_secrets

_NEW = "ledger_url: %s is a new ledger; whoever is to share it must name the very same"

log = logging.getLogger(__name__)
_READER_SECONDS = 0.05
"""How long a reader waits for the writing connection before it takes another."""
_ledgers: weakref.WeakSet[SQLLedger] = weakref.WeakSet()
_of_parents: list[OpenDatabase] = []
"""What was open when this process was forked."""
_gate = ForkGate()


class SQLLedger(TransactionalLedger):
    """A ledger at an SQLAlchemy URL: ``sqlite:///path`` or
    ``postgresql+psycopg://user@server/database``.

    Nothing is opened, created or migrated before the first call; a call that fails
    leaves the next call free to succeed. Safe across threads, and across processes,
    those forked from this process included.

    Args:
        url: names the database.
        is_default: nobody has named it: its folder is made where there is none, and
            that it is new is no news.

    Raises:
        LedgerUnavailable: at once when the URL is neither of these; later from any
            method.
    """

    def __init__(self, url: str, *, is_default: bool = False) -> None:
        self._url = parse_url(url)
        self._is_default = is_default
        self.shown_url = without_secrets(self._url)
        """The URL without its password, for people."""
        self._reader = RowReader(self.shown_url)
        self._doubt = Doubt()
        self._renew_locks()
        self._opened: OpenDatabase | None = None
        self._presence: Presence | None = None
        _import_driver(self._url)
        # Before it is opened: another thread may fork while one opens it.
        _ledgers.add(self)

    def read(self, host: str, now: float) -> LedgerState:
        """As the port says. What nobody else has written to since the last time is not
        read again, as far as the database can tell.
        """
        known = self._known()
        state = None if known is None else known.state(host, now)
        if state is not None:
            return state
        with self._transaction(writes=False, is_watching=True) as rows:
            rows.expect_state(host, now)
            next_due = rows.next_due()
            if now < next_due:
                state = _Within(rows).read(host, now)
                rows.remember(host, state, next_due, now)
                return state
        return super().read(host, now)

    def recall(self, host: str, now: float) -> LedgerState:
        # Whether the file is still the same is looked at when something is written.
        opened = None if self._doubt.is_open else self._opened
        known = None if opened is None else opened.known
        state = None if known is None else known.state(host, now)
        return self.read(host, now) if state is None else state

    def lease(self, lease_id: str, now: float) -> Lease:
        known = self._known()
        if known is not None and now < known.next_due:
            lease = known.leases.get(lease_id)
            if lease is not None:
                return lease
        return super().lease(lease_id, now)

    def _known(self) -> KnownState | None:
        """What is known, if nothing has been written since: asked in one statement,
        without a transaction.
        """
        opened = self._open()
        if opened.known is None or self._doubt.is_open:
            return None
        is_file = is_sqlite(self._url)
        with explained(self._url), self._watching(opened) as lent:
            if lent is None:
                return None
            known = opened.known
            stamp = opened.stamp(lent, is_sqlite=is_file)
        return known if known is not None and known.stamp == stamp else None

    @contextmanager
    def _watching(
        self, opened: OpenDatabase
    ) -> Iterator[sa.PoolProxiedConnection | None]:
        """A connection that tells whether others have written. For a file that is the
        writing connection: None while another thread has it for long.
        """
        if not is_sqlite(self._url):
            with _gate, database.connection(opened.engine) as lent:
                yield lent
            return
        with self._turn_to_read() as has_turn:
            if not has_turn:
                yield None
                return
            with _gate, opened.writer.lent() as lent:
                yield lent

    @contextmanager
    def _turn_to_read(self) -> Iterator[bool]:
        """Whether the writing connection is this thread's now. Whoever only reads need
        not wait as long as a writer may wait for another process.
        """
        has_turn = self._turn.acquire(timeout=_READER_SECONDS)
        try:
            yield has_turn
        finally:
            if has_turn:
                self._turn.release()

    def leases(
        self,
        now: float,
        *,
        host: str | None = None,
        live: bool = True,
        limit: int = 1000,
    ) -> tuple[Lease, ...]:
        if host is None or not live:
            return super().leases(now, host=host, live=live, limit=limit)
        return self.read(host, now).leases[::-1][: within(limit)]

    @contextmanager
    def _reading(self) -> Iterator[Rows]:
        with self._transaction(writes=False) as rows:
            yield rows

    @contextmanager
    def _writing(self) -> Iterator[Rows]:
        with self._transaction(writes=True) as rows:
            yield rows

    @contextmanager
    def _transaction(
        self, *, writes: bool, is_watching: bool = False
    ) -> Iterator[SQLRows]:
        """A transaction.

        Args:
            writes: it may change something.
            is_watching: what it reads is kept, for as long as nobody else writes.
        """
        opened = self._open()
        is_file = is_sqlite(self._url)
        if self._doubt.is_open and not writes:
            with self._transaction(writes=True):
                pass
        with (
            explained(self._url),
            self._turn_for(writes=writes, is_watching=is_watching) as has_turn,
            _gate,
            opened.writer.lent()
            if has_turn
            else database.pooled(opened.engine) as lent,
            database.transaction(lent, writes=writes, sqlite=is_file),
        ):
            rows = SQLRows(lent, opened, is_sqlite=is_file)
            # What a file was told is done, or undone, once the call is over.
            commit = self._doubt.watching(rows, matters=writes and not is_file)
            is_telling = has_turn if is_file else writes or is_watching
            rows.begin(self.shown_url, writes=writes, is_watching=is_telling)
            try:
                yield rows
            except REFUSALS:
                commit()
                raise
            commit()

    @contextmanager
    def _turn_for(self, *, writes: bool, is_watching: bool) -> Iterator[bool]:
        """Whether a transaction is to use the writing connection of a file."""
        if not is_sqlite(self._url) or not (writes or is_watching):
            yield False
        elif writes:
            with database.alone(self._turn):
                yield True
        else:
            with self._turn_to_read() as has_turn:
                yield has_turn

    def problems(self) -> tuple[str, ...]:
        return self._reader.problems()

    # -- who lives ---------------------------------------------------------------------

    def hold_presence(self, process: ProcessIdentity) -> None:
        with self._present() as locks:
            locks.hold(process)

    def presence(self, process: ProcessIdentity) -> Liveness:
        with self._present() as locks:
            return locks.liveness(process)

    def has_witness(self, process: ProcessIdentity) -> bool:
        with self._present() as locks:
            return locks.has_witness(process)

    @contextmanager
    def _present(self) -> Iterator[Presence]:
        self._open()
        with self._presence_lock, explained(self._url):
            if self._presence is None and is_sqlite(self._url):
                self._presence = FilePresence(Path(str(self._url.database)))
            elif self._presence is None:
                self._presence = SessionPresence(
                    lambda: self._open().engine.raw_connection()
                )
            yield self._presence

    def _leave_presence_to_parent(self) -> None:
        """In a forked child: what the parent shows is not the child's."""
        if self._presence is not None:
            self._presence.forget()
        self._presence = None

    def close(self) -> None:
        with self._presence_lock:
            if self._presence is not None:
                self._presence.drop()
            self._presence = None
        self._close_connections()

    def _close_connections(self) -> None:
        with _gate, self._lock:
            self._forget()

    def _close_before_fork(self) -> None:
        # Whoever has the lock now is opening the ledger, for longer than a fork waits:
        # there is nothing to be closed yet.
        if self._lock.acquire(blocking=False):
            try:
                self._forget()
            finally:
                self._lock.release()

    # -- opening and closing -----------------------------------------------------------

    def _open(self) -> OpenDatabase:
        current = identity(self._url)
        opened = self._opened
        if opened is not None and opened.identity == current:
            return opened
        with _gate, self._lock:
            if self._opened is not None and self._opened.identity != current:
                self._forget()
            if self._opened is None:
                self._opened = self._create()
            return self._opened

    def _forget(self) -> None:
        opened = self._opened
        self._opened = None
        if opened is None:
            return
        is_own = opened.identity[0] == os.getpid()
        if not is_own:
            # What was in use during a fork is the parent's: closing it here would break
            # it there.
            _of_parents.append(opened)
        elif self._turn.acquire(blocking=False):
            # Who has it now lets go of the writing connection by itself.
            try:
                opened.writer.close()
            finally:
                self._turn.release()
        opened.engine.dispose(close=is_own)

    def _create(self) -> OpenDatabase:
        with explained(self._url):
            engine = database.create(self._url, makes_folder=self._is_default)
            is_new = False
            if not self._is_up_to_date(engine):
                with engine.begin() as connection:
                    is_new = schema.bring_up_to_date(connection, self.shown_url)
        if is_new and not self._is_default:
            log.warning(_NEW, self.shown_url)
        statements = statements_for(engine.dialect)
        return OpenDatabase(engine, statements, identity(self._url), self._reader)

    def _is_up_to_date(self, engine: sa.Engine) -> bool:
        if is_sqlite(self._url):
            return False  # looking is as fast as seeing to it
        with database.connection(engine) as lent:
            return schema.is_up_to_date(lent)

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._presence_lock = threading.Lock()


def _import_driver(url: URL) -> None:
    """Import a server's driver now: a child that is forked while another thread imports
    it would wait for that import for ever.
    """
    if is_sqlite(url):
        return
    with suppress(ImportError):  # said when the ledger is used
        url.get_dialect()
        from . import postgresql as _postgresql  # noqa: F401


def _close_before_fork() -> None:
    # SQLite's locks do not cross a fork, but what a child inherits would make it
    # believe that it holds them.
    _gate.close()
    for ledger in list(_ledgers):
        ledger._close_before_fork()


def _renew_locks() -> None:
    _gate.renew()
    # A thread that held a lock is not in the child, and would never release it.
    for ledger in list(_ledgers):
        ledger._renew_locks()
        ledger._leave_presence_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_close_before_fork,
        after_in_parent=_gate.open,
        after_in_child=_renew_locks,
    )


class _Within(TransactionalLedger):
    """The rules, inside a reading transaction that has begun already."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @contextmanager
    def _reading(self) -> Iterator[Rows]:
        yield self._rows

    def _writing(self) -> AbstractContextManager[Rows]:
        raise AssertionError("nothing is due, so nothing is written")

    def hold_presence(self, process: ProcessIdentity) -> None:
        raise AssertionError("who lives is not in the rows")

    def presence(self, process: ProcessIdentity) -> Liveness:
        raise AssertionError("who lives is not in the rows")

    def has_witness(self, process: ProcessIdentity) -> bool:
        raise AssertionError("who lives is not in the rows")

    def close(self) -> None:
        pass
