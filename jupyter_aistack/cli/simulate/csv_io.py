"""Reading clusters and arrivals from CSV, and writing results, without leaving half of
a file behind.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyter_aistack.core.placement.demand import WHOLE, Demand, Node
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.system.files import replacing

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
DEMAND_COLUMNS = ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
ARRIVAL_COLUMNS = ("order", "name", *DEMAND_COLUMNS)
LARGEST = 10**12
"""No machine has more of anything; a larger number is a slip of the pen."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A demand, when its turn comes.

    Attributes:
        order: its turn; the lowest is placed first.
        name: what the trace calls it.
        demand: what it asks for.
    """

    order: int
    name: str
    demand: Demand


def read_nodes(path: Path) -> list[Node]:
    """The nodes of a cluster, from columns ``sn,cpu_milli,memory_mib,gpu,model``.

    Raises:
        InvalidRequest: naming file, row and column.
    """
    nodes: dict[str, Node] = {}
    for row in rows(path, NODE_COLUMNS):
        name = row.text("sn")
        if name in nodes:
            raise row.fault(
                "sn", "names a node that an earlier row has named; names must differ"
            )
        nodes[name] = Node(
            name=name,
            cpu_milli=row.number("cpu_milli"),
            memory_mib=row.number("memory_mib"),
            gpus=row.number("gpu", most=1024),
            model=row.cells["model"].strip(),
        )
    return list(nodes.values())


def read_arrivals(path: Path) -> list[Arrival]:
    """Arrivals in their order, from columns
    ``order,name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec]``.

    Raises:
        InvalidRequest: naming file, row and column.
    """
    arrivals: dict[int, Arrival] = {}
    for row in rows(path, ARRIVAL_COLUMNS):
        order = row.number("order")
        if order in arrivals:
            raise row.fault(
                "order", "is the order of an earlier row too; every row needs its own"
            )
        arrivals[order] = Arrival(
            order=order, name=row.cells["name"], demand=_demand(row)
        )
    return [arrivals[order] for order in sorted(arrivals)]


def read_history(path: Path) -> list[Demand]:
    """Demands of the past, from columns
    ``cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec]``.

    Raises:
        InvalidRequest: naming file, row and column.
    """
    return [_demand(row) for row in rows(path, DEMAND_COLUMNS)]


def write_rows(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV whole or not at all.

    Raises:
        InvalidRequest: when the place cannot be written to.
    """

    def fill(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)

    write_whole(path, fill)


def write_whole(path: Path, fill: Callable[[Path], None]) -> None:
    """Have `fill` write a file beside `path`, and put it in place when it is complete.

    Raises:
        InvalidRequest: when the place cannot be written to.
    """
    try:
        with replacing(path, suffix=path.suffix) as part:
            fill(part)
    except OSError as error:
        raise InvalidRequest(
            f"{path}: cannot be written: {error.strerror}", field="out"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table: its file, its line and its cells."""

    path: Path
    line: int
    cells: dict[str, str]

    def text(self, column: str) -> str:
        text = self.cells[column].strip()
        if not text:
            raise self.fault(column, "is empty; a name is needed")
        return text

    def number(self, column: str, *, least: int = 0, most: int = LARGEST) -> int:
        """A whole number, which may be written with zeros after the point."""
        text = self.cells[column].strip()
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (least <= value <= most and value == int(value)):
            limits = (
                f"a whole number from {least} to {most}"
                if most < LARGEST
                else f"a whole number from {least}"
            )
            raise self.fault(column, f"is not allowed; it must be {limits}")
        return int(value)

    def fault(self, column: str, why: str) -> InvalidRequest:
        """What to raise when a cell cannot be what it is."""
        where = f"{self.path.name}, row {self.line}, column {column}"
        text = self.cells.get(column, "")
        return InvalidRequest(
            f"{where}: {text!r} {why}", field=column, file=str(self.path), row=self.line
        )


def rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a CSV that has at least these columns; the header is row 1.

    Raises:
        InvalidRequest: naming file, row and column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval=None)
            _check_header(path, reader.fieldnames or (), columns)
            is_empty = True
            for cells in reader:
                is_empty = False
                yield _whole_row(path, reader.line_num, cells, columns)
            if is_empty:
                raise InvalidRequest(
                    f"{path.name}: it has no rows below the header",
                    field=columns[0],
                    file=str(path),
                )
    except OSError as error:
        raise InvalidRequest(
            f"{path}: cannot be read: {error.strerror}", field="file", file=str(path)
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(
            f"{path}: is not a CSV file in UTF-8: {error}", field="file", file=str(path)
        ) from error


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if not missing:
        return
    have = ", ".join(header) or "nothing"
    what = f"column {missing[0]} is missing; needed are {', '.join(columns)}, and row 1 has {have}"
    raise InvalidRequest(
        f"{path.name}: {what}", field=missing[0], file=str(path), row=1
    )


def _whole_row(
    path: Path, line: int, cells: dict[str, str | None], columns: Sequence[str]
) -> Row:
    kept = {name: text for name, text in cells.items() if isinstance(text, str)}
    row = Row(path=path, line=line, cells=kept)
    for column in columns:
        if column not in kept:
            raise row.fault(
                column, "is missing; the row has fewer cells than the header"
            )
    return row


def _demand(row: Row) -> Demand:
    gpus = row.number("num_gpu", most=1024)
    share = row.number("gpu_milli", least=1 if gpus else 0, most=WHOLE)
    models = [name.strip() for name in row.cells.get("gpu_spec", "").split("|")]
    return Demand(
        cpu_milli=row.number("cpu_milli"),
        memory_mib=row.number("memory_mib"),
        gpus=gpus,
        share_milli=share if gpus else 0,
        models=frozenset(models) - {""},
    )
