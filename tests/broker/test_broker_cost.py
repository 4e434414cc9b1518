"""What a request and a release cost of the ledger, by statements that are really sent."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.exceptions import AcquireTimeout, AIStackError
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.waiting import wait_until
from tests.ledger.conftest import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

ANN = Caller(user="ann", uid=1000, pid=7)
TRANSACTIONS = 4
STATEMENTS = 25
"""Of one request and its release together; those that begin and end a transaction are
counted as that."""


def note_sqlite(noted: list[str]) -> Callable[[], None]:
    """Note each statement that is sent to a file; returns how to end that."""

    def trace(connection: Any, _record: object) -> None:
        connection.set_trace_callback(noted.append)

    sa.event.listen(sa.pool.Pool, "connect", trace)
    return lambda: sa.event.remove(sa.pool.Pool, "connect", trace)


def note_postgresql(noted: list[str]) -> Callable[[], None]:
    from jupyter_aistack.ledger.sql.postgresql import TimedConnection

    execute = TimedConnection.execute

    def noting(
        connection: TimedConnection, query: Any, *given: Any, **named: Any
    ) -> Any:
        noted.append(str(query))
        return execute(connection, query, *given, **named)

    patch = pytest.MonkeyPatch()
    patch.setattr(TimedConnection, "execute", noting)
    return patch.undo


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def statements(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    noted: list[str] = []
    is_file = request.param == "sqlite"
    end = note_sqlite(noted) if is_file else note_postgresql(noted)
    yield noted
    end()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(
    statements: list[str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    clock: ManualClock,
) -> Iterator[Broker]:
    is_file = "sqlite" in request.node.callspec.id
    url = (
        f"sqlite:///{tmp_path}/ledger.sqlite"
        if is_file
        else request.getfixturevalue("postgres_url")
    )
    built = Broker(
        SQLLedger(url),
        [SimulatedProvider("2xH100-80GB")],
        host="testbox",
        clock=clock,
        is_alive=lambda pid, since: True,
    )
    yield built
    built.close()


@pytest.fixture
def service(broker: Broker) -> Service:
    service = Service(broker, groups=lambda user: frozenset())
    for _ in range(2):
        request_and_release(service)
    return service


def request_and_release(service: Service) -> None:
    payload = {"spec": "1/8", "idempotency_key": uuid.uuid4().hex}
    answer = service.call("request", payload, ANN)
    service.call("release", {"lease_id": answer["lease"]["id"]}, ANN)


def transactions(statements: list[str]) -> int:
    return sum(text.startswith("BEGIN") for text in statements)


def test_a_request_and_its_release_cost_few_transactions_and_statements(
    service: Service, statements: list[str]
) -> None:
    statements.clear()
    request_and_release(service)
    assert transactions(statements) <= TRANSACTIONS, "\n".join(statements)
    sent = [text for text in statements if not text.startswith(("BEGIN", "COMMIT"))]
    assert len(sent) <= STATEMENTS, "\n".join(statements)


@pytest.mark.parametrize("verb", ["leases", "queue", "host", "mine", "usage"])
def test_who_only_looks_begins_no_transaction_where_nothing_was_written(
    service: Service, statements: list[str], verb: str
) -> None:
    service.call("request", {"spec": "1"}, ANN)
    service.call("request", {"spec": "2"}, ANN)
    service.call(verb, {}, ANN)
    statements.clear()
    service.call(verb, {}, ANN)
    assert transactions(statements) == 0, "\n".join(statements)


def test_calls_that_come_together_are_planned_and_written_once(
    broker: Broker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = [
        broker.lease(broker.submit("1", holder(f"k-{n}")).lease_id) for n in (1, 2)
    ]
    write = broker.ledger.write
    writes: list[int] = []
    may_write = threading.Event()

    def held_back(changes: Any, *plan: Any) -> Any:
        writes.append(len(changes))
        assert may_write.wait(60)
        return write(changes, *plan)

    monkeypatch.setattr(broker.ledger, "write", held_back)

    def ask(name: str, patience: float | None) -> RequestState | AIStackError:
        try:
            request = broker.submit("1", holder(name), patience_seconds=patience)
        except AIStackError as refusal:
            return refusal
        return request.state

    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(ask, "k-3", None)
        wait_until(lambda: len(writes) == 1)
        calls = broker.cycle.__self__._calls  # type: ignore[attr-defined]
        others = []
        for number, patience in enumerate((None, 0.0, None)):
            clock.advance(1)
            others.append(pool.submit(ask, f"k-{4 + number}", patience))
            wait_until(lambda: len(calls._waiting) == len(others))
        released = pool.submit(broker.release, leases[0].id, leases[0].token)
        wait_until(lambda: len(calls._waiting) == len(others) + 1)
        may_write.set()
        answers = [future.result(60) for future in (first, *others)]
        assert not released.result(60).is_live

    assert writes[:2] == [1, 4]
    assert answers[:2] == [RequestState.QUEUED, RequestState.QUEUED]
    assert isinstance(answers[2], AcquireTimeout)
    assert answers[3] is RequestState.QUEUED
    held = {lease.holder.id for lease in broker.leases()}
    assert held == {"k-2", "k-3"}, "who came first has what was released"
