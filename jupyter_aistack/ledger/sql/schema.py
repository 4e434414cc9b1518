"""The tables, and how an older ledger becomes a current ledger.

Version 1 had no ``leases.due_at``: leases past their time were looked for among all the
live leases. Version 2 keeps it, with an index. Version 3 knows when leases were used,
what notices they were given, what users have used, and reservations. Version 4 knows
where the device state of each lease is. Version 5 keeps meters, charges and when cells
ran. Version 6 keeps the conditions of leases, which were one note before, and the code
of the error for which a request was rejected. Version 7 knows the keys of those who ask,
and ends no lease for want of a renewal. Version 8 knows machines by what they are, and
what they are called only for people. Version 9 knows whose kernels the cells ran in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import sqlalchemy as sa

from jupyter_aistack.exceptions import LedgerUnavailable, SchemaMismatch

_NUMBER = sa.BigInteger().with_variant(
    sa.Integer(), "sqlite"
)  # only INTEGER may count by itself in SQLite
_OPEN_LOCK = (
    0x61697374  # PostgreSQL advisory lock: one process at a time creates or migrates
)

metadata = sa.MetaData()

meta = sa.Table(
    "aistack_meta",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False),
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
    sa.Column("submitted_at", sa.Double, nullable=False),
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
    sa.Column("enforced_by", sa.Text),
    sa.Column("verified", sa.Boolean),
    sa.Column("conditions", sa.Text, nullable=False),  # JSON
    sa.Column("outcome", sa.Text),
    sa.Column("ended_at", sa.Double),
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
    sqlite_autoincrement=True,
)


def _add_due_at(connection: sa.Connection) -> None:
    number = sa.Double().compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE aistack_leases ADD COLUMN due_at {number}")
    earlier = "CASE WHEN ends_at < expires_at THEN ends_at ELSE expires_at END"
    connection.exec_driver_sql(
        f"UPDATE aistack_leases SET due_at = {earlier} WHERE outcome IS NULL"
    )
    connection.exec_driver_sql(
        "CREATE INDEX ix_aistack_leases_due_at ON aistack_leases (due_at)"
    )


def _add_use(connection: sa.Connection) -> None:
    number = sa.Double().compile(connection.dialect)
    connection.exec_driver_sql(
        f"ALTER TABLE aistack_leases ADD COLUMN active_at {number}"
    )
    connection.exec_driver_sql("ALTER TABLE aistack_leases ADD COLUMN notice TEXT")
    connection.exec_driver_sql(
        'CREATE TABLE aistack_accounts ("user" TEXT NOT NULL, queue TEXT NOT NULL,'
        f" decayed {number} NOT NULL, at {number} NOT NULL, week INTEGER NOT NULL, week_seconds {number} NOT NULL,"
        ' PRIMARY KEY ("user", queue))'
    )
    connection.exec_driver_sql(
        "CREATE TABLE aistack_reservations (id TEXT NOT NULL, name TEXT NOT NULL, host TEXT NOT NULL,"
        f" queue TEXT NOT NULL, spec TEXT NOT NULL, count INTEGER NOT NULL, starts_at {number} NOT NULL,"
        f" ends_at {number} NOT NULL, is_weekly BOOLEAN NOT NULL, created_by TEXT NOT NULL, PRIMARY KEY (id))"
    )


def _add_residence(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE aistack_leases ADD COLUMN residence TEXT")


def _add_charges(connection: sa.Connection) -> None:
    number = sa.Double().compile(connection.dialect)
    connection.exec_driver_sql(
        f"CREATE TABLE aistack_meters (host TEXT NOT NULL, device_id TEXT NOT NULL, at {number} NOT NULL,"
        f" millijoules BIGINT, idle_watts {number}, is_idle_seen BOOLEAN NOT NULL, writer TEXT NOT NULL,"
        " PRIMARY KEY (host, device_id))"
    )
    connection.exec_driver_sql(
        "CREATE TABLE aistack_charges (host TEXT NOT NULL, device_id TEXT NOT NULL, lease_id TEXT NOT NULL,"
        ' cell TEXT NOT NULL, day BIGINT NOT NULL, "user" TEXT NOT NULL, queue TEXT NOT NULL, owner TEXT NOT NULL,'
        f" label TEXT NOT NULL, spec TEXT NOT NULL, kind TEXT NOT NULL, seconds {number} NOT NULL,"
        f" share_seconds {number} NOT NULL, millijoules BIGINT NOT NULL, metered_seconds {number} NOT NULL,"
        f" busy_seconds {number} NOT NULL, levels TEXT NOT NULL, byte_seconds {number} NOT NULL,"
        f" memory_seconds {number} NOT NULL, peak_bytes BIGINT,"
        " PRIMARY KEY (host, device_id, lease_id, cell, day))"
    )
    for column in ("day", "owner", "label"):
        connection.exec_driver_sql(
            f"CREATE INDEX ix_aistack_charges_{column} ON aistack_charges ({column})"
        )
    connection.exec_driver_sql(
        f"CREATE TABLE aistack_cells (host TEXT NOT NULL, owner TEXT NOT NULL, cell TEXT NOT NULL,"
        f" began_at {number} NOT NULL, ended_at {number}, PRIMARY KEY (host, owner, cell, began_at))"
    )


_CONDITIONS_OF_NOTES = (
    ("on a GPU that failed:", "DeviceFault", "error"),
    ("over its memory:", "MemoryExceeded", "error"),
    ("not enforced:", "NotEnforced", "error"),
    ("near its memory:", "MemoryPressure", "warning"),
    ("its memory cannot be measured now,", "MemoryUnknown", "info"),
    ("could not be verified:", "NotVerified", "info"),
    ("there is nothing to verify", "NotVerified", "info"),
    ("held less firmly than it could be:", "EnforcementReduced", "info"),
)
"""How a note of version 5 began, and what it says in version 6. The words are those of
version 5 and stay so.
"""


def _conditions_of_note(note: str, outcome: str | None, since: float) -> str:
    kind, severity, message = _condition_of_note(note, outcome == "failed")
    condition = {
        "kind": kind,
        "severity": severity,
        "message": message,
        "since": since,
    }
    return json.dumps([condition], separators=(",", ":"))


def _condition_of_note(note: str, has_failed: bool) -> tuple[str, str, str]:
    for beginning, kind, severity in _CONDITIONS_OF_NOTES:
        if not note.startswith(beginning):
            continue
        if beginning.endswith(":"):
            return kind, severity, note.removeprefix(beginning).strip()
        return kind, severity, note
    return ("Failed", "error", note) if has_failed else ("Note", "info", note)


def _add_conditions(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        "ALTER TABLE aistack_leases ADD COLUMN conditions TEXT NOT NULL DEFAULT '[]'"
    )
    noted = connection.exec_driver_sql(
        "SELECT token, note, outcome, granted_at FROM aistack_leases WHERE note <> ''"
    ).fetchall()
    update = sa.text(
        "UPDATE aistack_leases SET conditions = :conditions WHERE token = :token"
    )
    # When a note came is not known; it was not before the grant.
    for token, note, outcome, granted_at in noted:
        conditions = _conditions_of_note(note, outcome, granted_at)
        connection.execute(update, {"conditions": conditions, "token": token})
    connection.exec_driver_sql("ALTER TABLE aistack_leases DROP COLUMN note")

    connection.exec_driver_sql(
        "ALTER TABLE aistack_requests ADD COLUMN code TEXT NOT NULL DEFAULT ''"
    )
    # Bound, since a driver takes a % in the text for a parameter of its own.
    code = sa.text(
        "UPDATE aistack_requests SET code = CASE"
        " WHEN reason LIKE :late THEN 'AcquireTimeout' ELSE 'Refused' END"
        " WHERE state = 'rejected'"
    )
    connection.execute(code, {"late": "%it was not to wait any longer"})


def _add_idempotency_keys(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        "ALTER TABLE aistack_requests"
        " ADD COLUMN idempotency_key TEXT NOT NULL DEFAULT ''"
    )
    connection.exec_driver_sql(
        "CREATE INDEX ix_aistack_requests_idempotency_key"
        " ON aistack_requests (idempotency_key)"
    )
    # Time alone ends a lease only where its user has asked for that.
    due = sa.text(
        "UPDATE aistack_leases SET due_at = COALESCE(ends_at, :never)"
        " WHERE outcome IS NULL"
    )
    connection.execute(due.bindparams(sa.bindparam("never", math.inf, sa.Double())))


def _add_hosts(connection: sa.Connection) -> None:
    # Whose rows are whose is found out when each machine registers: what they were
    # called is all that the rows of version 7 say.
    connection.exec_driver_sql(
        "CREATE TABLE aistack_hosts (id TEXT NOT NULL, name TEXT NOT NULL,"
        " machine TEXT NOT NULL, PRIMARY KEY (id, name))"
    )


def _add_users_of_cells(connection: sa.Connection) -> None:
    # Rows live for minutes, and those of version 8 do not say whose they are: what ran
    # just before is charged to the time between cells.
    number = sa.Double().compile(connection.dialect)
    connection.exec_driver_sql("DROP TABLE aistack_cells")
    connection.exec_driver_sql(
        'CREATE TABLE aistack_cells (host TEXT NOT NULL, "user" TEXT NOT NULL,'
        " owner TEXT NOT NULL, cell TEXT NOT NULL,"
        f" began_at {number} NOT NULL, ended_at {number},"
        ' PRIMARY KEY (host, "user", owner, cell, began_at))'
    )


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (
    _add_due_at,
    _add_use,
    _add_residence,
    _add_charges,
    _add_conditions,
    _add_idempotency_keys,
    _add_hosts,
    _add_users_of_cells,
)
"""In order: the first turns version 1 into version 2. Never edit a migration that has
been released; append.
"""

SCHEMA_VERSION = len(MIGRATIONS) + 1


NO_VERSION = "has lost its version; restore it from a copy or move it away"


def bring_up_to_date(connection: sa.Connection, shown_url: str) -> None:
    """Create the tables, or migrate them to `SCHEMA_VERSION`, inside the write
    transaction that `connection` is in.

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
                id=1, schema_version=SCHEMA_VERSION, version=0, token=0
            )
        )
        return
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
