"""How an older ledger becomes a current ledger, version by version.

Version 1 had no ``leases.due_at``: leases past their time were looked for among all the
live leases. Version 2 keeps it, with an index. Version 3 knows when leases were used,
what notices they were given, what users have used, and reservations. Version 4 knows
where the device state of each lease is. Version 5 keeps meters, charges and when cells
ran. Version 6 keeps the conditions of leases, which were one note before, and the code
of the error for which a request was rejected. Version 7 knows the keys of those who ask,
and ends no lease for want of a renewal. Version 8 knows machines by what they are, and
what they are called only for people. Version 9 knows whose kernels the cells ran in.
Version 10 knows how much of the energy that was charged is an estimate. Version 11 knows
up to what leases may use a device, and what they may use of it now. Version 12 knows the
faults of devices. Version 13 knows what each host has told of itself. Version 14 knows
who has made each event happen, and chains the events. Version 15 knows what has left for
files, and finds what is old by its time. Version 16 knows which devices are out of
placement by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import sqlalchemy as sa


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
        f" owner TEXT NOT NULL, cell TEXT NOT NULL, began_at {number} NOT NULL,"
        f' ended_at {number}, PRIMARY KEY (host, "user", owner, cell, began_at))'
    )


def _add_estimates(connection: sa.Connection) -> None:
    # What was charged before counts as measured, as it did then.
    connection.exec_driver_sql(
        "ALTER TABLE aistack_charges"
        " ADD COLUMN estimated_millijoules BIGINT NOT NULL DEFAULT 0"
    )


def _add_ceilings(connection: sa.Connection) -> None:
    for table in ("aistack_requests", "aistack_leases"):
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN up_to TEXT")
    connection.exec_driver_sql(
        "ALTER TABLE aistack_leases ADD COLUMN limits TEXT NOT NULL DEFAULT '[]'"
    )


def _add_device_faults(connection: sa.Connection) -> None:
    number = sa.Double().compile(connection.dialect)
    connection.exec_driver_sql(
        "CREATE TABLE aistack_device_faults (host TEXT NOT NULL, device_id TEXT NOT NULL,"
        f" code TEXT NOT NULL, message TEXT NOT NULL, since {number} NOT NULL,"
        " evidence TEXT NOT NULL, PRIMARY KEY (host, device_id, code))"
    )
    connection.exec_driver_sql(
        "ALTER TABLE aistack_events ADD COLUMN device_id TEXT NOT NULL DEFAULT ''"
    )


def _add_host_reports(connection: sa.Connection) -> None:
    number = sa.Double().compile(connection.dialect)
    connection.exec_driver_sql(
        "CREATE TABLE aistack_host_reports (host TEXT NOT NULL, allowance TEXT NOT NULL,"
        f" host_name TEXT NOT NULL, seen_at {number} NOT NULL, devices TEXT NOT NULL,"
        " PRIMARY KEY (host, allowance))"
    )


def _add_audit_trail(connection: sa.Connection) -> None:
    texts = ("owner", "before", "after", "user", "command", "host", "salt", "digest")
    for name in texts:
        connection.exec_driver_sql(
            f"ALTER TABLE aistack_events ADD COLUMN \"{name}\" TEXT NOT NULL DEFAULT ''"
        )
    for name in ("uid", "pid"):
        connection.exec_driver_sql(
            f"ALTER TABLE aistack_events ADD COLUMN {name} BIGINT"
        )
    for name in ("event_sequence", "chained_after"):
        connection.exec_driver_sql(
            f"ALTER TABLE aistack_meta ADD COLUMN {name} BIGINT NOT NULL DEFAULT 0"
        )
    connection.exec_driver_sql(
        "ALTER TABLE aistack_meta ADD COLUMN event_digest TEXT NOT NULL DEFAULT ''"
    )
    last = "(SELECT COALESCE(MAX(sequence), 0) FROM aistack_events)"
    connection.exec_driver_sql(
        f"UPDATE aistack_meta SET event_sequence = {last}, chained_after = {last}"
    )


def _add_archives(connection: sa.Connection) -> None:
    number = sa.Double().compile(connection.dialect)
    connection.exec_driver_sql(
        "CREATE TABLE aistack_archives (number BIGINT NOT NULL, kind TEXT NOT NULL,"
        " state TEXT NOT NULL, host TEXT NOT NULL, file TEXT NOT NULL,"
        " file_digest TEXT NOT NULL, keys TEXT NOT NULL, count BIGINT NOT NULL,"
        " pruned BIGINT NOT NULL, first BIGINT NOT NULL, last BIGINT NOT NULL,"
        f" digest TEXT NOT NULL, before {number} NOT NULL,"
        " is_pseudonymous BOOLEAN NOT NULL, PRIMARY KEY (number))"
    )
    # What is old is found by its time, however long the history is.
    for table, column in (("leases", "ended_at"), ("requests", "submitted_at")):
        connection.exec_driver_sql(
            f"CREATE INDEX ix_aistack_{table}_{column} ON aistack_{table} ({column})"
        )


def _add_drains(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        "ALTER TABLE aistack_meta ADD COLUMN drains TEXT NOT NULL DEFAULT '[]'"
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
    _add_estimates,
    _add_ceilings,
    _add_device_faults,
    _add_host_reports,
    _add_audit_trail,
    _add_archives,
    _add_drains,
)
"""In order: the first turns version 1 into version 2. Never edit a migration that has
been released; append.
"""

SCHEMA_VERSION = len(MIGRATIONS) + 1
