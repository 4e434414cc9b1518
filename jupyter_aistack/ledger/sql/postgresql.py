"""Connections to PostgreSQL that wait for nobody for ever."""

from __future__ import annotations

import time
from collections.abc import Generator
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

T = TypeVar("T")


class ServerIsSilent(psycopg.OperationalError):
    """The server has not answered in time; the connection is of no use any more."""


class TimedConnection(psycopg.Connection[Any]):
    """A connection that gives up on a server that does not answer.

    The time-outs of the server and of TCP are none where the server is stopped: its
    machine goes on taking what is sent.

    Attributes:
        answer_seconds: how long each answer is waited for.
    """

    answer_seconds = ANSWER_SECONDS

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
        self.autocommit = True  # one round trip instead of three
        try:
            self.execute("SELECT 1")
            self.autocommit = False
        finally:
            self.answer_seconds = usual


def create_server_engine(url: URL) -> sa.Engine:
    """An engine for a ledger on a server. What its URL says goes first."""
    patience = {"connect_timeout": CONNECT_SECONDS, **_KEEPALIVE}
    chosen = {name: value for name, value in patience.items() if name not in url.query}
    engine = sa.create_engine(
        url,
        max_overflow=-1,
        connect_args=chosen,
    )
    sa.event.listen(engine, "do_connect", _connect)
    sa.event.listen(engine.pool, "checkout", _check)
    return engine


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
    connection = TimedConnection.connect(*args, **options)
    limits = {
        "lock_timeout": LOCK_SECONDS,
        "statement_timeout": STATEMENT_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
    }
    settings = [f"SET {name} = {int(limits[name] * 1000)}" for name in limits]
    connection.execute(";".join(settings))
    connection.commit()
    return connection


def _may_pass(error: psycopg.OperationalError) -> bool:
    """Whether a server that is being started again would refuse in this way."""
    if isinstance(error, (ServerIsSilent, psycopg.errors.ConnectionTimeout)):
        return False  # waited for long enough
    connection = error.pgconn
    if connection is None:
        return True
    return not (connection.needs_password or connection.used_password)


def _check(connection: TimedConnection, _record: object, _lent: object) -> None:
    try:
        connection.ping()
    except psycopg.Error as error:
        # All others of the pool are as old.
        raise sa.exc.InvalidatePoolError from error
