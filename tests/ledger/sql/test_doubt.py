"""A commit whose answer was lost, and that the server carries out later."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import psycopg
import pytest

from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.sql import postgresql
from jupyter_aistack.ledger.sql.doubt import Doubt
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.ledger.sql.postgresql import TimedConnection
from tests.fakes.postgres_server import PostgresServer, running_server
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.postgres

Wish = Callable[..., Request]
HOST = "box"
NOW = 10.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def ledger(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SQLLedger]:
    """A ledger in use, with short time-outs."""
    monkeypatch.setattr(TimedConnection, "answer_seconds", 0.5)
    monkeypatch.setattr(postgresql, "LOCK_SECONDS", 0.2)
    admin = psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True)
    admin.execute("DROP SCHEMA public CASCADE")
    admin.execute("CREATE SCHEMA public")
    opened = SQLLedger(server.url)
    opened.read(HOST, NOW)
    # Tests' servers need not write down at once what they have answered for.
    admin.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    admin.execute("SELECT pg_reload_conf()")
    admin.execute("CHECKPOINT")
    admin.close()
    yield opened
    opened.close()


class LastTransaction:
    """One that has failed, or has not, and is to be committed."""

    error: BaseException | None = None

    def commit(self) -> None:
        if self.error is not None:
            raise self.error


def test_a_doubt_is_over_once_somebody_has_had_the_lock_since() -> None:
    doubt = Doubt()
    lost = LastTransaction()
    begun_before = doubt.watching(LastTransaction(), matters=True)
    lost.error = OSError("no answer")
    for _ in range(2):
        with pytest.raises(OSError, match="no answer"):
            doubt.watching(lost, matters=True)()
        begun_before()
        assert doubt.is_open
    doubt.watching(LastTransaction(), matters=False)()
    assert doubt.is_open, "who has only read has not had the lock"
    doubt.watching(LastTransaction(), matters=True)()
    assert not doubt.is_open


def test_nothing_is_read_while_the_server_may_still_carry_out_a_lost_commit(
    ledger: SQLLedger, wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.submit(wish("r-1"))
    stopped = []
    commit = TimedConnection.commit

    def stop_and_commit(connection: TimedConnection) -> None:
        """Commit on a connection whose process of the server is stopped."""
        stopped.append(connection.info.backend_pid)
        os.kill(stopped[0], signal.SIGSTOP)
        monkeypatch.setattr(TimedConnection, "commit", commit)
        connection.commit()

    monkeypatch.setattr(TimedConnection, "commit", stop_and_commit)
    try:
        with pytest.raises(LedgerUnavailable):
            ledger.cancel("r-1", NOW)
        for read in (
            lambda: ledger.read(HOST, NOW),
            lambda: ledger.recall(HOST, NOW),
            lambda: ledger.request("r-1"),
            lambda: ledger.waiting(),
        ):
            with pytest.raises(LedgerUnavailable):
                read()
    finally:
        os.kill(stopped[0], signal.SIGCONT)

    def is_cancelled() -> bool:
        try:
            return ledger.waiting() == ledger.read(HOST, NOW).requests == ()
        except LedgerUnavailable:  # the stopped process wakes up
            return False

    wait_until(is_cancelled)


def test_what_a_crashed_server_has_forgotten_is_not_known_any_more(
    server: PostgresServer, ledger: SQLLedger, wish: Wish
) -> None:
    """A server that need not keep what it has answered for, or a standby that has taken
    over, gives the numbers of transactions away once more.
    """
    ledger.submit(wish("r-1"))
    before = ledger.read(HOST, NOW)
    other = SQLLedger(server.url)
    other.read(HOST, NOW)
    server.kill()
    server.start()
    is_forgotten = not other.waiting()
    other.submit(wish("r-2"))
    seen = [request.id for request in ledger.read(HOST, NOW).requests]
    other.close()
    assert before.requests[0].id == "r-1"
    assert seen == (["r-2"] if is_forgotten else ["r-1", "r-2"])
