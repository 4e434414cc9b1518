"""How results look in a notebook: plain text and HTML from the same few rows,
everything escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

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
        lines = [
            self.title,
            *aligned([self.headings, *self.rows] if self.headings else self.rows, "  "),
        ]
        return "\n".join(
            [*lines, *([self.remark] if self.remark else []), *map(str, self.parts)]
        )

    __repr__ = __str__

    def to_html(self) -> str:
        """The same as HTML, with every piece of text escaped."""
        head = "".join(
            f'<th scope="col" style="{_CELL}">{escape(name)}</th>'
            for name in self.headings
        )
        body = "".join(f"<tr>{self._row_html(row)}</tr>" for row in self.rows)
        heading = f"<thead><tr>{head}</tr></thead>" if head else ""
        table = f'<table style="{_STYLE}">{heading}<tbody>{body}</tbody></table>'
        remark = (
            f'<div style="opacity:.8">{escape(self.remark)}</div>'
            if self.remark
            else ""
        )
        below = "".join(part.to_html() for part in self.parts)
        title = f"<strong>{escape(self.title)}</strong>"
        return (
            f'<div class="aistack">{title}{table if body else ""}{remark}{below}</div>'
        )

    def _row_html(self, row: Sequence[Any]) -> str:
        first = "td" if self.headings else 'th scope="row"'
        style = _CELL if self.headings else f"{_CELL};white-space:nowrap"
        label = f'<{first} style="{style}">{_cell_html(row[0])}</{first.split()[0]}>'
        return label + "".join(
            f'<td style="{_CELL}">{_cell_html(cell)}</td>' for cell in row[1:]
        )

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
        filled = (
            f'<span style="display:block;width:{width}%;height:8px;{_FILL}"></span>'
        )
        return f'<span style="{_TRACK}">{filled}</span>{escape(self.words)}'


def bar(part: float | None, whole: float, words: str) -> Bar | str:
    """A bar of `part` in `whole`; only the words where the part is unknown, so that
    unknown never looks like zero.
    """
    return words if part is None or whole <= 0 else Bar(part / whole, words)


def _cell_html(cell: Any) -> str:
    return cell.to_html() if isinstance(cell, Bar) else escape(str(cell))
