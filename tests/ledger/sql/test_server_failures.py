"""Who may not log in, or lacks rights, is told which, and what is to be done; no password
is shown anywhere.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from tests.fakes.postgres_server import PostgresServer, running_server

pytestmark = pytest.mark.postgres

Wish = Callable[..., Request]
SECRET = "hunter-2"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server with a role for each of two users, and one that needs a password."""
    with running_server() as running:
        with connected(running) as admin:
            admin.execute("CREATE ROLE ann LOGIN")
            admin.execute("CREATE ROLE bob LOGIN")
            admin.execute(f"CREATE ROLE carl LOGIN SUPERUSER PASSWORD '{SECRET}'")
        running.require_password("carl")
        yield running


@pytest.fixture(autouse=True)
def empty_schema(server: PostgresServer) -> None:
    with connected(server) as admin:
        admin.execute("DROP SCHEMA public CASCADE")
        admin.execute("CREATE SCHEMA public")


def connected(server: PostgresServer) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host="127.0.0.1", port=server.port, user="aistack", dbname="postgres"
    )


def refused(url: str) -> LedgerUnavailable:
    ledger = SQLLedger(url)
    with pytest.raises(LedgerUnavailable) as caught:
        ledger.read("box", 0.0)
    error = caught.value
    assert "\n" not in error.message
    shown = "".join(traceback.format_exception(error)) + str(error.as_dict())
    assert SECRET not in shown
    return error


def grants_of(error: LedgerUnavailable) -> list[str]:
    """The statements that a refusal names."""
    parts = error.message.replace("that: ", "; ").split("; ")
    return [part.strip() for part in parts if part.strip().startswith("GRANT ")]


def test_each_user_has_a_role_and_missing_grants_are_named(
    server: PostgresServer, wish: Wish
) -> None:
    error = refused(server.url_of("ann"))
    assert error.facts["problem"] == "not-allowed"
    assert grants_of(error) == ["GRANT USAGE, CREATE ON SCHEMA public TO ann"]
    with connected(server) as admin:
        admin.execute(grants_of(error)[0])
    SQLLedger(server.url_of("ann")).submit(wish("r-1"))

    error = refused(server.url_of("bob"))
    assert error.facts["problem"] == "not-allowed"
    assert "by the role bob (aistack_accounts, " in error.message
    assert "its owner ann can allow that" in error.message
    with connected(server) as admin:
        for grant in grants_of(error):
            admin.execute(grant)
    both = SQLLedger(server.url_of("bob"))
    both.submit(wish("r-2"))
    assert [each.id for each in both.read("box", 0.0).requests] == ["r-1", "r-2"]


def test_one_missing_right_is_named_alone(server: PostgresServer, wish: Wish) -> None:
    SQLLedger(server.url).submit(wish("r-1"))
    with connected(server) as admin:
        admin.execute("GRANT USAGE ON SCHEMA public TO bob")
        every = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO bob"
        admin.execute(f"GRANT {every}")
        admin.execute("REVOKE INSERT ON aistack_events FROM bob")
    ledger = SQLLedger(server.url_of("bob"))
    ledger.read("box", 0.0)
    lacking = r"role bob \(aistack_events\)"
    with pytest.raises(LedgerUnavailable, match=lacking):
        ledger.submit(wish("r-2"))


def test_only_its_owner_brings_an_old_ledger_up_to_date(
    server: PostgresServer, wish: Wish
) -> None:
    SQLLedger(server.url).submit(wish("r-1"))
    with connected(server) as admin:
        every = "ALL ON ALL TABLES IN SCHEMA public TO bob"
        admin.execute("GRANT USAGE, CREATE ON SCHEMA public TO bob")
        admin.execute(f"GRANT {every}")
        admin.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO bob")
        admin.execute("UPDATE aistack_meta SET schema_version = 6")
    error = refused(server.url_of("bob"))
    assert "its owner aistack alone can bring it up to date" in error.message


def test_a_password_is_taken_from_a_file_and_never_shown(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: Wish
) -> None:
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "missing"))
    url = server.url_of("carl")
    error = refused(url)
    assert error.facts["problem"] == "needs-password"
    assert "PGPASSFILE" in error.message

    file = tmp_path / "passwords"
    file.write_text(f"127.0.0.1:{server.port}:*:carl:{SECRET}\n")
    file.chmod(0o600)
    in_url = SQLLedger(f"{url}?passfile={file}")
    assert in_url.submit(wish("r-1")).id == "r-1"
    assert str(file) not in in_url.shown_url
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert SQLLedger(url).request("r-1").id == "r-1"

    file.write_text(f"127.0.0.1:{server.port}:*:carl:other\n")
    assert refused(url).facts["problem"] == "wrong-password"


def test_a_service_names_server_role_and_password(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: Wish
) -> None:
    file = tmp_path / "services"
    place = f"host=127.0.0.1\nport={server.port}\ndbname=postgres"
    file.write_text(f"[lab]\n{place}\nuser=carl\npassword={SECRET}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    by_url = SQLLedger("postgresql+psycopg:///?service=lab")
    assert by_url.submit(wish("r-1")).id == "r-1"
    monkeypatch.setenv("PGSERVICE", "lab")
    assert SQLLedger("postgresql+psycopg://").request("r-1").id == "r-1"


def test_a_password_in_a_url_is_shown_nowhere(server: PostgresServer) -> None:
    wrong = f"carl:{SECRET}-not"
    error = refused(server.url_of(wrong))
    assert error.facts["problem"] == "wrong-password"
    assert "carl@127.0.0.1" in error.message
    missing = server.url_of(f"carl:{SECRET}").replace("/postgres", "/nowhere")
    refused(missing)
