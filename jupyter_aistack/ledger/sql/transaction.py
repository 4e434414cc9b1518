"""One transaction with a database: statements sent, answers waited for, counters kept."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from jupyter_aistack.core.audit.chain import Link
from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.base import LedgerState

from . import codec, schema
from .cache import DecodeCache
from .failures import database_errors
from .salvage import RowReader
from .statements import Statement, Statements
from .url import Identity

_OWN_WRITES = "aistack_own_writes"
_PICTURES = "aistack_pictures"


@dataclass(frozen=True)
class OpenDatabase:
    """A database in use, and what has been read from it before."""

    engine: sa.Engine
    statements: Statements
    identity: Identity
    reader: RowReader
    leases: DecodeCache[Lease] = field(default_factory=DecodeCache)
    queued: DecodeCache[Request] = field(default_factory=DecodeCache)
    pictures: dict[str, CachedSnapshot] = field(default_factory=dict)


@dataclass(frozen=True)
class CachedSnapshot:
    """A state read at `stamp` and at the time `at`; nothing has been written as long as
    the stamp is the same.
    """

    stamp: Hashable
    state: LedgerState
    at: float


@dataclass
class _Counters:
    """The ledger's numbers: of its changes that concern plans, of its leases and of its
    events; and the digest of the last event.
    """

    version: int
    token: int
    event_sequence: int
    event_digest: str


class SQLTransaction:
    """One transaction, as it is sent to the database.

    What is sent to a server is not waited for until it is read: the first reading waits
    for all that was sent before it, the counters included.
    """

    def __init__(
        self,
        connection: sa.PoolProxiedConnection,
        opened: OpenDatabase,
        *,
        is_sqlite: bool,
    ) -> None:
        self._driver: Any = connection.dbapi_connection
        self._info = connection.info  # lives as long as the driver's connection
        self._opened = opened
        self._statements = opened.statements
        self._is_sqlite = is_sqlite
        self._reader = opened.reader
        self._is_sent = False
        self._meta: Any = None
        self._counters: _Counters | None = None
        self._drains = ""
        self._expected: dict[_Question, Any] = {}

    def begin(self, shown_url: str, *, writes: bool) -> None:
        """Ask for the counters; for a write that takes the ledger's lock as well."""
        self._shown_url = shown_url
        self._writes = writes
        meta = self._statements.lock_meta if writes else self._statements.read_meta
        self._meta = self._execute(meta)

    def _read_counters(self) -> _Counters:
        """The counters, waited for once.

        Raises:
            SchemaMismatch, LedgerUnavailable: another process has migrated the ledger,
                or spoiled it, since it was opened.
        """
        if self._counters is None:
            counters = self._answer_of_meta()
            if counters is None:
                message = f"ledger_url: {self._shown_url} {schema.NO_VERSION}"
                raise LedgerUnavailable(
                    message, field="ledger_url", ledger_url=self._shown_url
                )
            schema_version, *numbers, self._drains = counters
            schema.check_schema(schema_version, self._shown_url)
            self._counters = _Counters(*numbers)
            self._counters_read = _Counters(*numbers)
        return self._counters

    def _answer_of_meta(self) -> Any:
        try:
            self._settle()
            return self._meta.fetchone()
        except database_errors():
            self._check_answered_schema()
            raise

    def _check_answered_schema(self) -> None:
        """After a failure: what was sent behind the question for the counters may have
        failed because the schema is another.

        Raises:
            SchemaMismatch: it is.
        """
        is_checked = self._counters is not None
        if is_checked or self._meta is None or self._meta.description is None:
            return
        answer = self._meta.fetchone()
        if answer is not None:
            schema.check_schema(answer[0], self._shown_url)

    @property
    def version(self) -> int:
        return self._read_counters().version

    @version.setter
    def version(self, version: int) -> None:
        self._read_counters().version = version

    @property
    def chain_end(self) -> Link:
        """The last event, behind which the next is chained."""
        counters = self._read_counters()
        return Link(sequence=counters.event_sequence, digest=counters.event_digest)

    @chain_end.setter
    def chain_end(self, link: Link) -> None:
        counters = self._read_counters()
        counters.event_sequence = link.sequence
        counters.event_digest = link.digest

    def drains(self) -> tuple[Drain, ...]:
        self._read_counters()
        try:
            return codec.drains_from_text(self._drains)
        except (ValueError, TypeError) as error:
            # Which devices are out of placement is not known: nothing is granted.
            raise LedgerUnavailable(
                f"ledger_url: {self._shown_url} does not tell which devices are drained;"
                " restore it from a copy or move it away",
                field="ledger_url",
                ledger_url=self._shown_url,
            ) from error

    def keep_drains(self, drains: tuple[Drain, ...]) -> None:
        self._read_counters()
        self._drains = codec.drains_to_text(drains)
        self._execute(self._statements.write_drains, drains=self._drains)

    def commit(self) -> None:
        """End the transaction and keep what it has done, the counters too if they have
        moved.
        """
        counters = self._read_counters()
        if counters != self._counters_read:
            self._execute(
                self._statements.write_meta,
                version=counters.version,
                token=counters.token,
                event_sequence=counters.event_sequence,
                event_digest=counters.event_digest,
            )
        self._driver.commit()
        if self._writes:
            self._info[_OWN_WRITES] = self._info.get(_OWN_WRITES, 0) + 1

    @property
    def pictures(self) -> dict[str, CachedSnapshot]:
        """The hosts' states as they were read before, to be looked up and replaced."""
        if not self._is_sqlite:
            return self._opened.pictures
        known: dict[str, CachedSnapshot] = self._info.setdefault(_PICTURES, {})
        return known

    def stamp(self) -> Hashable:
        """What is the same as long as nothing at all has been written."""
        if not self._is_sqlite:
            # Which transactions this one sees.
            snapshot: str = self._fetch(self._statements.stamp)[0][0]
            return snapshot
        # SQLite counts for each connection what any other connection has committed,
        # whichever process it belongs to.
        data_version = int(self._driver.execute("PRAGMA data_version").fetchone()[0])
        return (data_version, self._info.get(_OWN_WRITES, 0))

    # -- sending and reading -----------------------------------------------------------

    def _select(
        self, statement: Statement, **parameters: object
    ) -> Iterator[dict[str, Any]]:
        return map(statement.mapping, self._fetch(statement, **parameters))

    def _select_each(
        self, statement: Statement, keys: Iterable[object]
    ) -> Iterator[dict[str, Any]]:
        """The rows of each key, asked for all at once where that saves waiting."""
        for key in keys:
            self._expect(statement, key=key)
        return (row for key in keys for row in self._select(statement, key=key))

    def _expect(self, statement: Statement, **parameters: object) -> None:
        """Send a statement whose rows will be read in a moment, so that a server is
        waited for once; a file would be asked for what may not be needed.
        """
        question = _question(statement, parameters)
        if not self._is_sqlite and question not in self._expected:
            self._expected[question] = self._execute(statement, **parameters)

    def _forget_expected(self, statement: Statement, key: object) -> None:
        """What was asked for before a row was written is not as it is now."""
        self._expected.pop(_question(statement, {"key": key}), None)

    def _fetch(self, statement: Statement, **parameters: object) -> list[Any]:
        """What a statement returns."""
        asked = None
        if self._expected:
            asked = self._expected.pop(_question(statement, parameters), None)
        if asked is None:
            asked = self._execute(statement, **parameters)
        self._read_counters()
        self._settle()
        rows: list[Any] = asked.fetchall()
        return rows

    def _settle(self) -> None:
        """Wait for what was sent to a server."""
        if self._is_sent and not self._is_sqlite:
            self._driver.settle()
        self._is_sent = False

    def _execute(self, statement: Statement, **parameters: object) -> Any:
        """Send a statement; where that is a server, its answer is to come."""
        self._is_sent = True
        values = {**statement.defaults, **parameters}
        try:
            return self._driver.execute(statement.text, values)
        except database_errors():
            # A server may tell already that a statement before this one has failed.
            self._check_answered_schema()
            raise


_Question = tuple[str, tuple[tuple[str, object], ...]]


def _question(statement: Statement, parameters: Mapping[str, object]) -> _Question:
    return statement.text, tuple(sorted(parameters.items()))
