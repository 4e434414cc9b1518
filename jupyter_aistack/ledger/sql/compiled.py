"""How statements become text that a driver takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa


@dataclass(frozen=True)
class Statement:
    """One statement as the driver takes it.

    Attributes:
        text: the SQL, with named parameters.
        defaults: parameters whose value is always the same.
        columns: names of what it returns.
        flags: those of them that are booleans, which SQLite returns as numbers.
    """

    text: str
    defaults: Mapping[str, Any]
    columns: tuple[str, ...]
    flags: tuple[str, ...]

    def mapping(self, row: Sequence[Any]) -> dict[str, Any]:
        """A returned row by column name."""
        named = dict(zip(self.columns, row, strict=True))
        for name in self.flags:
            if named[name] is not None:
                named[name] = bool(named[name])
        return named


class Compiler:
    """Compiles statements in the dialect of a database.

    Args:
        dialect: whose parameters are named (``paramstyle`` ``named`` or ``pyformat``).
    """

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect

    def query(self, query: sa.Select[Any]) -> Statement:
        """A statement that returns rows."""
        columns = list(query.selected_columns)
        names = tuple(column.name for column in columns)
        flags = tuple(
            column.name for column in columns if isinstance(column.type, sa.Boolean)
        )
        return self._compiled(query, names, flags)

    def change(
        self, change: sa.Insert | sa.Update | Any, columns: Collection[str] | None
    ) -> Statement:
        """A statement that changes rows.

        Args:
            columns: those that it gives values; None where it says so itself.
        """
        keys = None if columns is None else list(columns)
        return self._compiled(change, (), (), keys)

    def _compiled(
        self,
        element: Any,
        columns: tuple[str, ...],
        flags: tuple[str, ...],
        keys: list[str] | None = None,
    ) -> Statement:
        compiled = element.compile(dialect=self._dialect, column_keys=keys)
        defaults = {
            name: value for name, value in compiled.params.items() if value is not None
        }
        return Statement(str(compiled), defaults, columns, flags)
