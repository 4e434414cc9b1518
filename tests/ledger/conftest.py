"""Ledgers of every kind for the tests, PostgreSQL's server included."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from tests.fakes.leases import grant, wish
from tests.fakes.postgres_server import running_server

_schemas = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server that was started for this session and ends with it."""
    with running_server() as server:
        yield server.url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """URL of an empty ledger on the server: a schema of its own."""
    name = f"t{next(_schemas)}"
    engine = sa.create_engine(postgres_server)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    engine.dispose()
    return f"{postgres_server}?options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a ledger that several processes can share, not yet created."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger of each kind."""
    build: dict[str, Callable[[], Ledger]] = {
        "memory": MemoryLedger,
        "sqlite": lambda: SQLLedger(f"sqlite:///{tmp_path}/ledger.sqlite"),
        "postgres": lambda: SQLLedger(request.getfixturevalue("postgres_url")),
    }
    built = build[request.param]()
    yield built
    built.close()


__all__ = ["grant", "wish"]
