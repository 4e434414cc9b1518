"""One transaction with a database: statements sent, answers waited for, counters kept."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from jupyter_aistack.core.audit.chain import Link
from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.state import LedgerState

from . import codec, schema
from .cache import DecodeCache
from .compiled import Statement
from .database import WritingConnection
from .failures import database_errors
from .known import Counters, HostState, KnownState, Written
from .salvage import RowReader
from .statements import Statements
from .url import Identity


@dataclass
class OpenDatabase:
    """A database in use, and what has been read from it before.

    Attributes:
        known: what it holds, as far as this process knows; None for nothing.
    """

    engine: sa.Engine
    statements: Statements
    identity: Identity
    reader: RowReader
    leases: DecodeCache[Lease] = field(default_factory=DecodeCache)
    queued: DecodeCache[Request] = field(default_factory=DecodeCache)
    known: KnownState | None = None

    def __post_init__(self) -> None:
        self.writer = WritingConnection(self.engine)

    def stamp(self, lent: sa.PoolProxiedConnection, *, is_sqlite: bool) -> Hashable:
        """What is the same as long as nobody else has written anything at all."""
        if is_sqlite:
            return self.writer.stamp(lent)
        driver: Any = lent.dbapi_connection
        stamp: tuple[str, str] = driver.execute(self.statements.stamp.text).fetchone()
        return stamp


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
        self._connection = connection
        self._driver: Any = connection.dbapi_connection
        self._opened = opened
        self._statements = opened.statements
        self._is_sqlite = is_sqlite
        self._reader = opened.reader
        self._is_sent = False
        self._meta: Any = None
        self._counters: Counters | None = None
        self._expected: dict[_Question, Any] = {}
        self._asked_stamp: Any = None
        self._stamp: Hashable = None
        self._known: KnownState | None = None
        self._written = Written()

    def begin(self, shown_url: str, *, writes: bool, is_watching: bool) -> None:
        """Ask for the counters; for a write that takes the ledger's lock as well.

        Args:
            is_watching: find out whether what is known is still so, and keep what is
                read or written now. In a file only the writing connection can.
        """
        self._shown_url = shown_url
        self._writes = writes
        if is_watching and self._is_sqlite:
            self._recall(self._opened.writer.stamp(self._connection))
            if self._known is not None:
                return
        meta = self._statements.lock_meta if writes else self._statements.read_meta
        self._meta = self._execute(meta)
        if is_watching and not self._is_sqlite:
            # A statement of its own: one that has waited for the lock tells what was
            # before it waited.
            self._asked_stamp = self._execute(self._statements.stamp)

    def _recall(self, stamp: Hashable) -> None:
        """Go by what is known, if it is of this moment."""
        self._stamp = stamp
        known = self._opened.known
        if known is not None and known.stamp == stamp:
            self._known = known
            self._keep_counters(known.counters)

    def _keep_counters(self, counters: Counters) -> None:
        self._counters_read = counters
        self._counters = counters

    @property
    def known(self) -> KnownState | None:
        """What was known before this transaction, if it is still so."""
        self._read_counters()
        return self._known

    def _read_counters(self) -> Counters:
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
            schema_version, *numbers = counters
            schema.check_schema(schema_version, self._shown_url)
            self._keep_counters(Counters(*numbers))
            if self._asked_stamp is not None:
                self._recall(self._asked_stamp.fetchone())
        assert self._counters is not None
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
        self._counters = replace(self._read_counters(), version=version)

    @property
    def chain_end(self) -> Link:
        """The last event, behind which the next is chained."""
        counters = self._read_counters()
        return Link(sequence=counters.event_sequence, digest=counters.event_digest)

    @chain_end.setter
    def chain_end(self, link: Link) -> None:
        self._counters = replace(
            self._read_counters(),
            event_sequence=link.sequence,
            event_digest=link.digest,
        )

    def drains(self) -> tuple[Drain, ...]:
        try:
            return codec.drains_from_text(self._read_counters().drains)
        except (ValueError, TypeError) as error:
            # Which devices are out of placement is not known: nothing is granted.
            raise LedgerUnavailable(
                f"ledger_url: {self._shown_url} does not tell which devices are drained;"
                " restore it from a copy or move it away",
                field="ledger_url",
                ledger_url=self._shown_url,
            ) from error

    def keep_drains(self, drains: tuple[Drain, ...]) -> None:
        text = codec.drains_to_text(drains)
        self._counters = replace(self._read_counters(), drains=text)
        self._written.is_partly_known = True

    def commit(self) -> None:
        """End the transaction and keep what it has done, the counters too if they have
        moved.
        """
        counters = self._read_counters()
        self._send_written()
        if counters != self._counters_read:
            self._execute(
                self._statements.write_meta,
                version=counters.version,
                token=counters.token,
                event_sequence=counters.event_sequence,
                event_digest=counters.event_digest,
                drains=counters.drains,
            )
        if not self._writes:
            self._driver.commit()
            return
        # A file's stamp does not tell of what is written here: what is known is
        # forgotten first, as the next step may be the last.
        self._opened.known = None
        self._driver.commit()
        self._opened.known = self._known_after(counters)

    def _send_written(self) -> None:
        """Send what was written and not sent yet."""

    def _known_after(self, counters: Counters) -> KnownState | None:
        """What is known after this write; None where it was not known before."""
        known = self._known
        stamp = self._stamp if self._is_sqlite else _next_stamp(self._stamp)
        if known is None or stamp is None:
            return None
        return known.after(self._written, counters, stamp)

    def remember(
        self, host: str, state: LedgerState, next_due: float, at: float
    ) -> None:
        """Keep a host's state that this transaction has read at the time `at`, if it can
        be told how long it is so.
        """
        counters = self._read_counters()
        if self._stamp is None:
            return
        hosts = {} if self._known is None else self._known.hosts
        self._opened.known = KnownState(
            stamp=self._stamp,
            counters=counters,
            next_due=next_due,
            hosts={**hosts, host: HostState(state, at)},
        )

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


def _next_stamp(stamp: Any) -> Hashable:
    """How a server's stamp goes on after the one transaction that is under way; None
    where others are under way as well, or were at that moment.

    A stamp is the least and the next number of the transactions that have not ended,
    and those between: ``7:7:``; and since when the server runs. A writer's own number
    is not among them.
    """
    if stamp is None:
        return None
    snapshot, started = stamp
    least, following, others = snapshot.split(":")
    if least != following or others:
        return None
    number = int(following) + 1
    return f"{number}:{number}:", started


_Question = tuple[str, tuple[tuple[str, object], ...]]


def _question(statement: Statement, parameters: Mapping[str, object]) -> _Question:
    return statement.text, tuple(sorted(parameters.items()))
