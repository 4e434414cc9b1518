"""How results look in a notebook: plain text and HTML from the same few rows,
everything escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from jupyter_aistack.core.model.printable import printable

from .text import aligned

__all__ = ["Panel", "bar", "escape"]

_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_TRACK = "display:inline-block;width:120px;height:8px;margin-right:8px;background:rgba(128,128,128,.3)"
_FILL = "background:var(--jp-brand-color1,#1976d2)"
_CELL = "text-align:left;padding:2px 12px 2px 0;vertical-align:top"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A title, rows, and a closing remark; shown as text in a terminal and as a table
    in a notebook.

    Attributes:
        title: one line above the rows.
        headings: names of the columns; empty for rows of label and value.
        rows: the cells, as text or as a :class:`Bar`.
        remark: what the reader should know or do next.
        parts: panels that belong to it and are shown below.
    """

    title: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    remark: str = ""
    parts: Sequence[Panel] = ()

    def __str__(self) -> str:
        table = [self.headings, *self.rows] if self.headings else self.rows
        lines = [printable(self.title), *aligned(table, indent="  ")]
        lines.extend(printable(line) for line in self.remark.splitlines())
        lines.extend(str(part) for part in self.parts)
        return "\n".join(lines)

    __repr__ = __str__

    def to_html(self) -> str:
        """The same as HTML, with every text escaped."""
        title = f"<strong>{escape(self.title)}</strong>"
        table = self._table_html() if self.rows else ""
        remark = ""
        if self.remark:
            remark = f'<div style="opacity:.8">{escape(self.remark)}</div>'
        parts = "".join(part.to_html() for part in self.parts)
        return f'<div class="aistack">{title}{table}{remark}{parts}</div>'

    def _table_html(self) -> str:
        head = ""
        if self.headings:
            names = [escape(name) for name in self.headings]
            cells = [f'<th scope="col" style="{_CELL}">{name}</th>' for name in names]
            head = f"<thead><tr>{''.join(cells)}</tr></thead>"
        rows = [f"<tr>{self._row_html(row)}</tr>" for row in self.rows]
        body = f"<tbody>{''.join(rows)}</tbody>"
        return f'<table style="{_STYLE}">{head}{body}</table>'

    def _row_html(self, row: Sequence[Any]) -> str:
        first, *others = map(_cell_html, row)
        if self.headings:
            label = f'<td style="{_CELL}">{first}</td>'
        else:
            style = f"{_CELL};white-space:nowrap"
            label = f'<th scope="row" style="{style}">{first}</th>'
        cells = [f'<td style="{_CELL}">{cell}</td>' for cell in others]
        return label + "".join(cells)

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self.to_html()}


@dataclass(frozen=True)
class Bar:
    """A share of something, with the words that say the same."""

    share: float
    words: str

    def __str__(self) -> str:
        return self.words

    def to_html(self) -> str:
        width = round(100 * min(1.0, max(0.0, self.share)))
        style = f"display:block;width:{width}%;height:8px;{_FILL}"
        filled = f'<span style="{style}"></span>'
        return f'<span style="{_TRACK}">{filled}</span>{escape(self.words)}'


def bar(part: float | None, whole: float, words: str) -> Bar | str:
    """A bar of `part` in `whole`; only the words where the part is unknown, so that
    unknown never looks like zero.
    """
    if part is None or whole <= 0:
        return words
    return Bar(part / whole, words)


def _cell_html(cell: Any) -> str:
    return cell.to_html() if isinstance(cell, Bar) else escape(str(cell))
