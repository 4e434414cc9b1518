"""Commands that read the books: reports of use by user and week, and advice."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_aistack.exceptions import InvalidRequest

from .output import JSON, columns, show
from .queues import read_moment

COLUMNS = (
    "week",
    "user",
    "gpu_hours",
    "gpu_hours_used",
    "gpu_hours_idle",
    "gib_hours",
    "energy_kwh",
    "energy_coverage",
    "cost",
    "co2e_g",
    "cpu_hours",
    "peak_bytes",
    "activity_coverage",
    "is_simulated",
)
"""Of a report as CSV, in this order; what is not known is empty."""


def add_report_options(usage: argparse.ArgumentParser) -> None:
    """What ``usage`` takes beside ``--json``."""
    usage.add_argument(
        "--report",
        action="store_true",
        help="hours, energy, cost and carbon by user and week",
    )
    whose = usage.add_mutually_exclusive_group()
    whose.add_argument(
        "--user", default="", metavar="U", help="of this user (yourself)"
    )
    whose.add_argument("--all", action="store_true", help="of all users")
    usage.add_argument(
        "--week",
        default="",
        metavar="WEEK",
        help="one week only, e.g. 2026-W48 (Monday to Sunday, UTC)",
    )
    usage.add_argument(
        "--since", metavar="WHEN", help='from that day on, e.g. "2026-11-01"'
    )
    usage.add_argument(
        "--csv",
        metavar="FILE",
        help="write the report as CSV; - is the standard output",
    )


def report(options: argparse.Namespace) -> int:
    """What users have used, by week."""
    from jupyter_aistack.client.client import connect

    payload: JSON = {"all": options.all, "user": options.user, "week": options.week}
    if options.since is not None:
        payload["since"] = read_moment(options.since, field="since")
    found = connect().call("report", **payload)
    if options.csv is not None:
        _write(options.csv, as_csv(found["lines"]))
        if options.csv == "-" and not options.json:
            return 0
    show(options, found, _report_lines(options, found))
    return 0


def as_csv(lines: Iterable[JSON]) -> str:
    """The lines of a report as CSV, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_plain(line[name]) for name in COLUMNS] for line in lines)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """A value as it stands in CSV; a name that a spreadsheet would take for a formula
    is made a text.
    """
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value


def _write(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(
            f"csv: {path} cannot be written: {error.strerror}", field="csv"
        ) from error


def _report_lines(options: argparse.Namespace, found: JSON) -> Iterable[str]:
    if not found["lines"]:
        when = f"in {options.week}" if options.week else f"since {_day(found['since'])}"
        yield f"nothing was used {when}"
        return
    headings = (
        "week",
        "user",
        "GPU-h",
        "used",
        "at 0 %",
        "GiB-h",
        "kWh",
        "cost",
        "gCO2e",
        "CPU-h",
        "",
    )
    yield from columns([headings, *(_row(line) for line in found["lines"])])
    total = found["total"]
    if len(found["lines"]) > 1:
        yield f"in all: {total['gpu_hours']:.2f} GPU-h, {_number(total['energy_kwh'], 3)} kWh"


def _row(line: JSON) -> Sequence[str]:
    share = line["energy_coverage"]
    partly = (
        f"energy known for {share:.0%} of the time"
        if line["energy_kwh"] is not None and share < 0.995
        else ""
    )
    return (
        line["week"],
        line["user"],
        _number(line["gpu_hours"], 2),
        _number(line["gpu_hours_used"], 2),
        _number(line["gpu_hours_idle"], 2),
        _number(line["gib_hours"], 1),
        _number(line["energy_kwh"], 3),
        _number(line["cost"], 2),
        _number(line["co2e_g"], 0),
        _number(line["cpu_hours"], 2),
        "simulated" if line["is_simulated"] else partly,
    )


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _day(at: float) -> str:
    return (
        datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
        if at
        else "the books were begun"
    )


def advise(options: argparse.Namespace) -> int:
    """Which size would have done, for each of your notebooks."""
    from jupyter_aistack.client.client import connect

    found = connect().call("advise", all=True)
    lines = [f"{one['label']}: {one['text']}" for one in found["advice"]]
    show(
        options,
        found,
        lines or ["none of your notebooks has held a GPU in the last four weeks"],
    )
    return 0
