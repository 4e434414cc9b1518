"""A ledger on a PostgreSQL server that is stopped, killed, busy or full: each call returns
in seconds with one sentence, and works again once the server does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.sql import postgresql
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.ledger.sql.postgresql import ServerIsSilent, TimedConnection
from jupyter_aistack.ledger.sql.url import parse_url
from tests.fakes.postgres_server import PostgresServer, running_server

pytestmark = pytest.mark.postgres

Wish = Callable[..., Request]
SECONDS = 20.0
"""Far more than the time-outs chosen here, far less than for ever."""


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
    monkeypatch.setattr(postgresql, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(postgresql, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(postgresql, "RETRY_SECONDS", 0.3)
    with psycopg.connect(**place(server)) as admin:
        admin.execute("DROP SCHEMA public CASCADE")
        admin.execute("CREATE SCHEMA public")
    opened = SQLLedger(server.url)
    opened.read("box", 0.0)
    with psycopg.connect(**place(server)) as admin:
        admin.execute("CHECKPOINT")  # tests' servers write nothing down at once
    yield opened
    opened.close()


def place(server: PostgresServer, role: str = "aistack") -> dict[str, object]:
    return {
        "host": "127.0.0.1",
        "port": server.port,
        "user": role,
        "dbname": "postgres",
    }


def refusal(ledger: SQLLedger, request: Request) -> LedgerUnavailable:
    began = time.monotonic()
    with pytest.raises(LedgerUnavailable) as refused:
        ledger.submit(request)
    assert time.monotonic() - began < SECONDS
    assert "\n" not in refused.value.message
    return refused.value


def test_a_stopped_server_is_given_up_and_works_again_once_it_goes_on(
    server: PostgresServer, ledger: SQLLedger, wish: Wish
) -> None:
    with server.stopped():
        for each in (ledger, SQLLedger(server.url)):
            error = refusal(each, wish("r-1"))
            assert error.facts["problem"] == "silent"
            assert "does not answer in time" in error.message
    assert ledger.submit(wish("r-1")).id == "r-1"


def test_an_answer_in_the_middle_of_a_transaction_is_not_waited_for_either(
    server: PostgresServer, ledger: SQLLedger
) -> None:
    connection = TimedConnection.connect(**place(server))
    connection.execute("SELECT 1")
    with server.stopped(), pytest.raises(ServerIsSilent):
        connection.execute("SELECT 1")
    assert connection.closed, "an answer that comes late belongs to no other question"


def test_a_killed_server_is_named_and_works_again_once_it_is_started(
    server: PostgresServer, ledger: SQLLedger, wish: Wish
) -> None:
    server.kill()
    error = refusal(ledger, wish("r-1"))
    assert error.facts["problem"] == "unreachable"
    server.start()
    assert ledger.submit(wish("r-1")).id == "r-1"


def test_connections_that_a_restart_has_broken_are_replaced(
    server: PostgresServer, ledger: SQLLedger, wish: Wish
) -> None:
    server.stop()
    server.start()
    assert ledger.submit(wish("r-1")).id == "r-1"


def test_a_lock_that_another_keeps_is_waited_for_for_a_while(
    server: PostgresServer, ledger: SQLLedger, wish: Wish
) -> None:
    with psycopg.connect(**place(server)) as other:
        other.execute("SELECT * FROM aistack_meta FOR UPDATE")
        assert refusal(ledger, wish("r-1")).facts["problem"] == "busy"
    assert ledger.submit(wish("r-1")).id == "r-1"


def test_a_transaction_that_is_left_open_does_not_keep_the_ledger(
    server: PostgresServer,
    ledger: SQLLedger,
    wish: Wish,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgresql, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(postgresql, "LOCK_SECONDS", 10.0)
    monkeypatch.setattr(TimedConnection, "answer_seconds", 10.0)
    stopped = postgresql.create_server_engine(parse_url(server.url))
    left_open = stopped.raw_connection()
    driver: Any = left_open.dbapi_connection
    driver.begin()
    driver.execute("SELECT * FROM aistack_meta FOR UPDATE")
    driver.settle()
    assert SQLLedger(server.url).submit(wish("r-1")).id == "r-1"
    with pytest.raises(psycopg.OperationalError):
        left_open.commit()
    left_open.invalidate()
    stopped.dispose()


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ("53100", "full"),
        ("53200", "exhausted"),
        ("25006", "read-only"),
        ("58030", "failing"),
        ("57014", "slow"),
        ("XX001", "damaged"),
        ("P0001", "unusable"),
    ],
)
def test_what_the_server_reports_is_told_apart_and_undone(
    server: PostgresServer, ledger: SQLLedger, wish: Wish, state: str, problem: str
) -> None:
    with psycopg.connect(**place(server)) as admin:
        admin.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$"
        )
        admin.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON aistack_events"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    error = refusal(ledger, wish("r-1"))
    assert error.facts["problem"] == problem
    assert ledger.read("box", 0.0).requests == ()
