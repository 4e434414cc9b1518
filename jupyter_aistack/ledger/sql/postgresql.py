"""Connections to PostgreSQL that wait for nobody for ever."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL

CONNECT_SECONDS = 5
RETRY_SECONDS = 2.0
"""How long a server that refuses connections is asked again: it may be starting."""
RETRY_PAUSE_SECONDS = 0.2
LOCK_SECONDS = 10.0
"""How long one transaction waits for another."""
STATEMENT_SECONDS = 12.0
"""How long the server works on one statement, waits included."""
ANSWER_SECONDS = 14.0
"""How long a server may be silent: a little longer than it takes to say that it was too
slow."""
PING_SECONDS = 3.0
"""How long a connection that was not in use may take to show that it still works."""
FRESH_SECONDS = 0.02
"""A connection that was in use so recently, and that the server has not closed since,
is taken to work: by the transaction before, of the same call of a broker."""
IDLE_SECONDS = 60.0
"""How long a transaction may be left open: that of a process that is stopped would hold
the ledger's lock for as long as it is."""

_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}

_USED_AT = "aistack_used_at"
_KNOWS_TRANSACTION_TIMEOUT = 170000
"""The first server that ends what is left open between two statements of one batch."""

T = TypeVar("T")


class ServerIsSilent(psycopg.OperationalError):
    """The server has not answered in time; the connection is of no use any more."""


class TimedConnection(psycopg.Connection[Any]):
    """A connection that gives up on a server that does not answer, and that waits for
    no answer which nobody reads.

    The time-outs of the server and of TCP are none where the server is stopped: its
    machine goes on taking what is sent.

    Attributes:
        answer_seconds: how long each answer is waited for.
    """

    answer_seconds = ANSWER_SECONDS
    _batch: AbstractContextManager[psycopg.Pipeline] | None = None
    _sent: psycopg.Pipeline | None = None

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """As psycopg's, for a limited time.

        Raises:
            ServerIsSilent: it has passed; the connection is closed.
        """
        return super().wait(self._timed(gen), *args, **options)

    def _timed(self, answers: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        deadline = time.monotonic() + self.answer_seconds
        try:
            wanted = next(answers)
            while True:
                ready = yield wanted  # 0 when nothing has come for a while
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise ServerIsSilent("the server does not answer")
                wanted = answers.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result

    def ping(self) -> None:
        """Find out whether the server still answers on this connection.

        Raises:
            psycopg.Error: it does not.
        """
        usual = self.answer_seconds
        self.answer_seconds = min(PING_SECONDS, usual)
        try:
            self.execute("SELECT 1")
        finally:
            self.answer_seconds = usual

    def is_unasked(self) -> bool:
        """Whether nothing has come from the server that it was not asked for: all that
        does is that it closes the connection.
        """
        readable, _, _ = select.select([self], [], [], 0)
        return not readable

    # -- transactions ------------------------------------------------------------------

    def begin(self, mode: str = "") -> None:
        """Begin a transaction. Its statements are sent at once, and waited for by
        `settle` and at its end: each wait is a round trip, during which a writer keeps
        the ledger's lock.

        Args:
            mode: the transaction's, in SQL.
        """
        if psycopg.Pipeline.is_supported():
            self._batch = self.pipeline()
            self._sent = self._batch.__enter__()
        self.execute(f"BEGIN {mode}")

    def settle(self) -> None:
        """Wait for the answers to all that was sent. The server then knows that this
        side is to go on: it ends a transaction that is left so for long.
        """
        if self._sent is not None:
            self._sent.sync()

    def commit(self) -> None:
        """End the transaction and keep what it has done.

        Raises:
            psycopg.Error: that could not be, or a statement has failed that nobody has
                read the answer of.
        """
        if self._batch is not None:
            self.execute("COMMIT")
            self._end_batch()
        super().commit()

    def rollback(self) -> None:
        """End the transaction and undo what it has done."""
        with suppress(psycopg.Error):
            if self._batch is not None:
                self.execute("ROLLBACK")
        # What has failed before has been raised, or will never be read.
        with suppress(psycopg.Error):
            self._end_batch()
        super().rollback()

    def _end_batch(self) -> None:
        batch = self._batch
        self._batch = None
        self._sent = None
        if batch is not None:
            batch.__exit__(None, None, None)


def create_server_engine(url: URL) -> sa.Engine:
    """An engine for a ledger on a server. What its URL says goes first."""
    patience = {"connect_timeout": CONNECT_SECONDS, **_KEEPALIVE}
    chosen = {name: value for name, value in patience.items() if name not in url.query}
    engine = sa.create_engine(
        url,
        max_overflow=-1,
        use_native_hstore=False,  # would be looked for in each new engine
        pool_use_lifo=True,  # what was in use just now need not be tried out
        connect_args=chosen,
    )
    sa.event.listen(engine, "do_connect", _connect)
    sa.event.listen(engine, "begin", _begin)
    sa.event.listen(engine.pool, "checkout", _check)
    sa.event.listen(engine.pool, "checkin", _note_use)
    return engine


def _begin(connection: sa.Connection) -> None:
    """Only creating and migrating goes through SQLAlchemy."""
    connection.exec_driver_sql("BEGIN")


def _connect(
    _dialect: object, _record: object, args: list[Any], options: dict[str, Any]
) -> TimedConnection:
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            return _opened(args, options)
        except psycopg.OperationalError as error:
            if not _may_pass(error) or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_PAUSE_SECONDS)


def _opened(args: list[Any], options: dict[str, Any]) -> TimedConnection:
    # A transaction begins where we say so.
    connection = TimedConnection.connect(*args, **options, autocommit=True)
    limits = {
        "lock_timeout": LOCK_SECONDS,
        "statement_timeout": STATEMENT_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
    }
    if connection.info.server_version >= _KNOWS_TRANSACTION_TIMEOUT:
        limits["transaction_timeout"] = IDLE_SECONDS
    settings = [f"SET {name} = {int(limits[name] * 1000)}" for name in limits]
    connection.execute(";".join(settings))
    return connection


def _may_pass(error: psycopg.OperationalError) -> bool:
    """Whether a server that is being started again would refuse in this way."""
    if isinstance(error, (ServerIsSilent, psycopg.errors.ConnectionTimeout)):
        return False  # waited for long enough
    connection = error.pgconn
    if connection is None:
        return True
    return not (connection.needs_password or connection.used_password)


def _check(connection: TimedConnection, record: Any, _lent: object) -> None:
    used_at = record.info.get(_USED_AT, -math.inf)
    is_fresh = time.monotonic() - used_at < FRESH_SECONDS
    try:
        if not is_fresh or not connection.is_unasked():
            connection.ping()
    except (OSError, ValueError, psycopg.Error) as error:
        # All others of the pool are as old.
        raise sa.exc.InvalidatePoolError from error


def _note_use(_connection: object, record: Any) -> None:
    record.info[_USED_AT] = time.monotonic()
