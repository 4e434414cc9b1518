"""The tables, as the last of the migrations leaves them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from jupyter_aistack.exceptions import LedgerUnavailable, SchemaMismatch

from .migrations import MIGRATIONS, SCHEMA_VERSION

_NUMBER = sa.BigInteger().with_variant(
    sa.Integer(), "sqlite"
)  # only INTEGER may count by itself in SQLite
_OPEN_LOCK = (
    0x61697374  # PostgreSQL advisory lock: one process at a time creates or migrates
)

_READ_VERSION = "SELECT schema_version FROM aistack_meta"
_UNDEFINED_TABLE = "42P01"

metadata = sa.MetaData()

meta = sa.Table(
    "aistack_meta",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("event_sequence", sa.BigInteger, nullable=False),
    sa.Column("event_digest", sa.Text, nullable=False),  # of the last event
    sa.Column(
        "chained_after", sa.BigInteger, nullable=False
    ),  # events up to this one are of a schema that kept no digests
    sa.Column("drains", sa.Text, nullable=False),  # JSON
)

requests = sa.Table(
    "aistack_requests",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),  # JSON
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("priority", sa.BigInteger, nullable=False),
    sa.Column("lease_seconds", sa.Double),
    sa.Column("patience_seconds", sa.Double),
    sa.Column("preemptible", sa.Boolean, nullable=False),
    sa.Column("up_to", sa.Text),
    sa.Column("submitted_at", sa.Double, nullable=False, index=True),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("lease_id", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.Text, nullable=False, index=True),
)

leases = sa.Table(
    "aistack_leases",
    metadata,
    sa.Column("token", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),  # JSON
    sa.Column("slices", sa.Text, nullable=False),  # JSON
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("granted_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("ends_at", sa.Double),
    sa.Column("preemptible", sa.Boolean, nullable=False),
    sa.Column("up_to", sa.Text),
    sa.Column("limits", sa.Text, nullable=False),  # JSON
    sa.Column("enforced_by", sa.Text),
    sa.Column("verified", sa.Boolean),
    sa.Column("conditions", sa.Text, nullable=False),  # JSON
    sa.Column("outcome", sa.Text),
    sa.Column("ended_at", sa.Double, index=True),
    sa.Column(
        "due_at", sa.Double, index=True
    ),  # when time alone ends it, infinity for never; NULL once it has ended
    sa.Column("active_at", sa.Double),
    sa.Column("notice", sa.Text),  # JSON
    sa.Column("residence", sa.Text),  # JSON
)

hosts = sa.Table(
    "aistack_hosts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("machine", sa.Text, nullable=False),
)

host_reports = sa.Table(
    "aistack_host_reports",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("allowance", sa.Text, primary_key=True),
    sa.Column("host_name", sa.Text, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Column("devices", sa.Text, nullable=False),  # JSON
)

device_faults = sa.Table(
    "aistack_device_faults",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("device_id", sa.Text, primary_key=True),
    sa.Column("code", sa.Text, primary_key=True),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
)

accounts = sa.Table(
    "aistack_accounts",
    metadata,
    sa.Column("user", sa.Text, primary_key=True),
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("decayed", sa.Double, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("week", sa.Integer, nullable=False),
    sa.Column("week_seconds", sa.Double, nullable=False),
)

reservations = sa.Table(
    "aistack_reservations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("starts_at", sa.Double, nullable=False),
    sa.Column("ends_at", sa.Double, nullable=False),
    sa.Column("is_weekly", sa.Boolean, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
)

meters = sa.Table(
    "aistack_meters",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("device_id", sa.Text, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("millijoules", sa.BigInteger),
    sa.Column("idle_watts", sa.Double),
    sa.Column("is_idle_seen", sa.Boolean, nullable=False),
    sa.Column("writer", sa.Text, nullable=False),
)

charges = sa.Table(
    "aistack_charges",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("device_id", sa.Text, primary_key=True),
    sa.Column("lease_id", sa.Text, primary_key=True),
    sa.Column("cell", sa.Text, primary_key=True),
    sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False, index=True),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False, index=True),
    sa.Column(
        "label", sa.Text, nullable=False, index=True
    ),  # looked for at each request, for advice
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("share_seconds", sa.Double, nullable=False),
    sa.Column("millijoules", sa.BigInteger, nullable=False),
    sa.Column("metered_seconds", sa.Double, nullable=False),
    sa.Column("estimated_millijoules", sa.BigInteger, nullable=False),
    sa.Column("busy_seconds", sa.Double, nullable=False),
    sa.Column("levels", sa.Text, nullable=False),  # JSON
    sa.Column("byte_seconds", sa.Double, nullable=False),
    sa.Column("memory_seconds", sa.Double, nullable=False),
    sa.Column("peak_bytes", sa.BigInteger),
)

cells = sa.Table(
    "aistack_cells",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("user", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("cell", sa.Text, primary_key=True),
    sa.Column("began_at", sa.Double, primary_key=True),
    sa.Column("ended_at", sa.Double),
)

events = sa.Table(
    "aistack_events",
    metadata,
    sa.Column("sequence", _NUMBER, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("lease_id", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("device_id", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("before", sa.Text, nullable=False),  # JSON
    sa.Column("after", sa.Text, nullable=False),  # JSON
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("uid", sa.BigInteger),
    sa.Column("pid", sa.BigInteger),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

archives = sa.Table(
    "aistack_archives",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("file_digest", sa.Text, nullable=False),
    sa.Column("keys", sa.Text, nullable=False),  # JSON
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("pruned", sa.BigInteger, nullable=False),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("before", sa.Double, nullable=False),
    sa.Column("is_pseudonymous", sa.Boolean, nullable=False),
)

NO_VERSION = "has lost its version; restore it from a copy or move it away"


def is_up_to_date(connection: sa.PoolProxiedConnection) -> bool:
    """Whether a server's ledger is there and needs no migration: found out in one round
    trip, without the lock that those who make or migrate it wait for.
    """
    driver: Any = connection.dbapi_connection
    try:
        row = driver.execute(_READ_VERSION).fetchone()
    except Exception as error:  # the driver's own
        if getattr(error, "sqlstate", None) != _UNDEFINED_TABLE:
            raise
        return False
    return row is not None and row[0] == SCHEMA_VERSION


def bring_up_to_date(connection: sa.Connection, shown_url: str) -> bool:
    """Create the tables, or migrate them to `SCHEMA_VERSION`, inside the write
    transaction that `connection` is in; whether they were created.

    Raises:
        SchemaMismatch: the ledger was written by a newer version.
        LedgerUnavailable: its tables are there, but not what they hold.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPEN_LOCK)))
    if not sa.inspect(connection).has_table(meta.name):
        metadata.create_all(connection)
        connection.execute(
            meta.insert().values(
                id=1,
                schema_version=SCHEMA_VERSION,
                version=0,
                token=0,
                event_sequence=0,
                event_digest="",
                chained_after=0,
                drains="[]",
            )
        )
        return True
    version = connection.execute(sa.select(meta.c.schema_version)).scalar()
    if version is None:
        raise LedgerUnavailable(
            f"ledger_url: {shown_url} {NO_VERSION}",
            field="ledger_url",
            ledger_url=shown_url,
        )
    check_schema(version, shown_url)
    for migrate in MIGRATIONS[version - 1 :]:
        migrate(connection)
    if version < SCHEMA_VERSION:
        connection.execute(meta.update().values(schema_version=SCHEMA_VERSION))
    return False


def check_schema(version: int, shown_url: str) -> None:
    """Refuse a ledger of a version we do not know."""
    if not 1 <= version <= SCHEMA_VERSION:
        raise SchemaMismatch(
            f"ledger_url: {shown_url} was written by a newer jupyter_aistack (its schema is {version},"
            f" this one knows {SCHEMA_VERSION}); upgrade jupyter_aistack or name another ledger",
            field="ledger_url",
            ledger_url=shown_url,
            found=version,
            known=SCHEMA_VERSION,
        )
