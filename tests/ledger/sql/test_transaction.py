"""What one transaction sends to a server, and how often it waits for the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from jupyter_aistack.core.model.lease import Lease, LeaseTransition, Outcome
from jupyter_aistack.core.model.plan import Grant, Plan
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LeaseLost, SchemaMismatch
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.ledger.sql.postgresql import TimedConnection

pytestmark = pytest.mark.postgres

Wish = Callable[..., Request]
Granter = Callable[..., Lease]


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[SQLLedger]:
    opened = SQLLedger(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each wait for a server's answers in a transaction."""
    noted: list[str] = []

    def counted(name: str) -> None:
        method = getattr(TimedConnection, name)

        def call(connection: TimedConnection, *given: Any) -> Any:
            noted.append(name)
            return method(connection, *given)

        monkeypatch.setattr(TimedConnection, name, call)

    for name in ("settle", "commit"):
        counted(name)
    return noted


def test_a_request_and_a_grant_take_two_round_trips_each(
    ledger: SQLLedger, wish: Wish, waits: list[str]
) -> None:
    version = ledger.read("box", 0.0).version
    waits.clear()
    request = ledger.submit(wish("r-1"))
    assert waits == ["settle", "commit"]
    waits.clear()
    grant = Grant(request=request, slices=(), expires_at=60.0)
    ledger.apply(Plan(version=version + 1, actions=(grant,)), 1.0)
    assert waits == ["settle", "commit"]


def test_what_nobody_has_written_to_is_not_read_again(
    ledger: SQLLedger, wish: Wish, waits: list[str]
) -> None:
    ledger.submit(wish("r-1"))
    state = ledger.read("box", 0.0)
    waits.clear()
    assert ledger.read("box", 1.0) is state
    assert ledger.leases(1.0, host="box") == ()
    assert waits == []  # one statement alone, in no transaction


def test_what_another_has_written_is_seen_at_once(
    ledger: SQLLedger, postgres_url: str, wish: Wish, grant: Granter
) -> None:
    other = SQLLedger(postgres_url)
    lease = grant(ledger, wish("r-1"), ends_at=60.0)
    assert other.read("box", 1.0).leases == (lease,)
    renewed = ledger.renew(lease.id, lease.token, 2.0, 50.0)
    assert other.read("box", 2.0).leases == (renewed,)
    assert other.read("box", 60.0).leases == ()  # time alone has ended it
    assert ledger.lease(lease.id, 60.0).outcome is Outcome.EXPIRED
    other.close()


def test_a_lease_that_ends_in_a_transaction_is_ended_for_all_of_it(
    ledger: SQLLedger, wish: Wish, grant: Granter
) -> None:
    lease = grant(ledger, wish("r-1"), ends_at=60.0)
    # It was asked for in one batch with what is due.
    with pytest.raises(LeaseLost):
        ledger.renew(lease.id, lease.token, 61.0, 100.0)
    with pytest.raises(LeaseLost):
        ledger.step(lease.id, lease.token, LeaseTransition.ACTIVATE, 61.0)


@pytest.mark.parametrize("answers", ["late", "early"])
def test_another_schema_is_named_also_where_its_columns_are_others(
    ledger: SQLLedger,
    postgres_url: str,
    answers: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger.read("box", 0.0)
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE aistack_meta SET schema_version = 99")
        connection.exec_driver_sql("ALTER TABLE aistack_accounts DROP COLUMN week")
    engine.dispose()
    if answers == "early":
        execute = TimedConnection.execute

        def execute_and_wait(connection: TimedConnection, *given: Any) -> Any:
            cursor = execute(connection, *given)
            connection.settle()
            return cursor

        monkeypatch.setattr(TimedConnection, "execute", execute_and_wait)
    with pytest.raises(SchemaMismatch):
        ledger.read("box", 0.0)
    with pytest.raises(SchemaMismatch):
        SQLLedger(postgres_url).read("box", 0.0)
