"""What to tell people when PostgreSQL refuses, fails or does not answer."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import URL

from .failures import BUSY, DAMAGED, Failure, database_errors, driver_error

NOT_INSTALLED = Failure(
    "not-installed",
    "needs the package psycopg; install psycopg[binary] or name an SQLite file",
)
SILENT = Failure(
    "silent",
    "does not answer in time; look whether the server and the network are well, and "
    "try again",
)
UNREACHABLE = Failure(
    "unreachable",
    "does not answer or refuses the login; start the server, or correct the address, "
    "user or password",
)
NEEDS_PASSWORD = Failure(
    "needs-password",
    "wants a password; write it into a file that you alone can read and name that in "
    "PGPASSFILE, or in the URL (?passfile=)",
)
WRONG_PASSWORD = Failure(
    "wrong-password",
    "refuses the login with this password; correct the user or the password",
)
UNUSABLE = Failure(
    "unusable",
    "does not hold a usable ledger; check that the user may create tables in it",
)
STARTING = Failure(
    "starting", "is being started or stopped; try again in a moment or start it"
)
_BY_STATE = {
    "08": UNREACHABLE,
    "25006": Failure(
        "read-only", "takes no writes (it may be a standby); name the server that does"
    ),
    "25P03": Failure(
        "interrupted",
        "has undone a change in which this process was silent for too long; try again",
    ),
    "28": UNREACHABLE,
    "3D000": Failure(
        "no-database", "does not exist; create the database or correct it"
    ),
    "53100": Failure(
        "full", "cannot be written because the server's disk is full; free some there"
    ),
    "53": Failure(
        "exhausted",
        "has no connections or memory left; try again in a moment, or raise "
        "max_connections",
    ),
    "55P03": BUSY,
    "57014": Failure(
        "slow", "took too long to answer; try again, or look what keeps the server busy"
    ),
    "57P": STARTING,
    "58": Failure(
        "failing", "cannot be written because the server's disk fails; look after it"
    ),
    "XX": DAMAGED,
}
"""By the beginning of the state that the server sends with an error, the longest first;
see "PostgreSQL Error Codes"."""
_NOT_ALLOWED = ("42501", "3F000")
"""No right to something; no schema that one has a right to."""


def server_failure(error: BaseException, url: URL) -> Failure:
    """Why a ledger on a server has failed."""
    if isinstance(error, ImportError):
        return NOT_INSTALLED
    cause = driver_error(error)
    state = getattr(cause, "sqlstate", None) or ""
    if state in _NOT_ALLOWED:
        return Failure("not-allowed", _what_is_not_allowed(url))
    for length in (5, 3, 2):
        if state[:length] in _BY_STATE:
            return _BY_STATE[state[:length]]
    if state:
        return UNUSABLE
    return _without_state(cause)


def _without_state(cause: BaseException) -> Failure:
    """What only this side has seen: that there was no answer, or no connection."""
    import psycopg

    from .postgresql import ServerIsSilent

    if isinstance(cause, (ServerIsSilent, psycopg.errors.ConnectionTimeout)):
        return SILENT
    if not isinstance(cause, psycopg.OperationalError):
        return UNUSABLE
    connection = cause.pgconn
    if connection is not None and connection.needs_password:
        return NEEDS_PASSWORD
    if connection is not None and connection.used_password:
        return WRONG_PASSWORD
    return UNREACHABLE


@dataclass(frozen=True, kw_only=True)
class _Rights:
    """What the role of this connection may not do.

    Attributes:
        role: it.
        schema: where the tables are, or would be.
        owner: the role that has made them; None where there are none.
        lacking: tables that it may not use as a ledger is used.
    """

    role: str
    schema: str
    owner: str | None
    lacking: tuple[str, ...]


_ROLE = """
SELECT quote_ident(current_user), n.nspname,
(SELECT quote_ident(pg_get_userbyid(c.relowner)) FROM pg_catalog.pg_class c
WHERE c.relnamespace = n.oid AND c.relname = 'aistack_meta')
FROM pg_catalog.pg_namespace n
WHERE n.nspname = coalesce(current_schema(), :searched)
"""
_LACKING = """
SELECT quote_ident(c.relname) FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND starts_with(c.relname, 'aistack_') AND CASE c.relkind
WHEN 'r' THEN NOT (has_table_privilege(c.oid, 'SELECT')
  AND has_table_privilege(c.oid, 'INSERT')
  AND has_table_privilege(c.oid, 'UPDATE')
  AND has_table_privilege(c.oid, 'DELETE'))
ELSE false END
ORDER BY 1
"""


def _rights(url: URL) -> _Rights | None:
    """What the role may not do; None where that cannot be asked."""
    from .postgresql import create_server_engine

    engine = create_server_engine(url)
    with contextlib.suppress(*database_errors()), engine.connect() as connection:
        # The schema that would be used is not a current schema without the right to.
        path = str(connection.execute(sa.text("SHOW search_path")).scalar())
        searched = path.rpartition(",")[2].strip(' "') or "public"
        rows = connection.execute(sa.text(_ROLE), {"searched": searched}).fetchall()
        for role, schema, owner in rows:
            names = connection.execute(sa.text(_LACKING), {"schema": schema}).scalars()
            return _Rights(role=role, schema=schema, owner=owner, lacking=tuple(names))
    return None


def _what_is_not_allowed(url: URL) -> str:
    rights = _rights(url)
    if rights is None:
        return "may not be used by this role; ask its owner for the rights"
    role = rights.role
    schema = rights.schema
    if rights.owner is None:
        return (
            f"cannot be set up by the role {role}; its administrator can allow that: "
            f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}"
        )
    if rights.lacking:
        return (
            f"may not be used by the role {role} ({', '.join(rights.lacking)}); its "
            f"owner {rights.owner} can allow that: "
            f"GRANT USAGE ON SCHEMA {schema} TO {role}; "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} "
            f"TO {role}"
        )
    return (
        f"is of an older version, and its owner {rights.owner} alone can bring it up to "
        "date; run `jupyter aistack doctor` once as that role"
    )
