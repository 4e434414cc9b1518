"""Commands of accounting: reports of use by user and week, and advice."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_aistack.client.text import aligned, number_text
from jupyter_aistack.exceptions import InvalidRequest

from .connection import connect
from .output import JSON, show
from .queues import read_past_moment

COLUMNS = (
    "week",
    "user",
    "gpu_hours",
    "gpu_hours_used",
    "gpu_hours_idle",
    "gib_hours",
    "energy_kwh",
    "energy_coverage",
    "energy_estimated_kwh",
    "cost",
    "co2e_g",
    "cpu_hours",
    "peak_bytes",
    "activity_coverage",
    "is_simulated",
)
"""Of a report as CSV, in this order; what is not known is empty."""

HEADINGS = (
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
"""Of a report for people."""

FULL_COVERAGE = 0.995
"""From this share on, the energy counts as known for the whole time."""

FORMULA_SIGNS = tuple("=+-@\t\r")
"""What a spreadsheet takes for the beginning of a formula."""


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
        "--since",
        metavar="WHEN",
        help='from that day on, e.g. "2026-11-01", or "7d" for seven days ago',
    )
    usage.add_argument(
        "--csv",
        metavar="FILE",
        help="write the report as CSV; - is the standard output",
    )


def report(options: argparse.Namespace) -> int:
    """What users have used, by week."""
    payload: JSON = {"all": options.all, "user": options.user, "week": options.week}
    if options.since is not None:
        payload["since"] = read_past_moment(options.since, field="since")
    answer = connect().call("report", **payload)
    if options.csv is not None:
        _write(options.csv, as_csv(answer["lines"]))
        # The standard output has the table already: lines for people would spoil it.
        if options.csv == "-" and not options.json:
            return 0
    show(options, answer, _report_lines(options, answer))
    return 0


def as_csv(lines: Iterable[JSON]) -> str:
    """The lines of a report as CSV, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        writer.writerow([_csv_value(line[name]) for name in COLUMNS])
    return text.getvalue()


def _csv_value(value: Any) -> Any:
    """A value for CSV; a name that a spreadsheet would take for a formula is made a
    text.
    """
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(FORMULA_SIGNS):
        return f"'{value}"
    return value


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


def _report_lines(options: argparse.Namespace, answer: JSON) -> Iterable[str]:
    lines = answer["lines"]
    if not lines:
        when = f"in {options.week}" if options.week else _since(answer["since"])
        yield f"nothing was used {when}"
        return
    yield from aligned([HEADINGS, *(_row(line) for line in lines)])
    if len(lines) > 1:
        total = answer["total"]
        energy = number_text(total["energy_kwh"], 3)
        yield f"in all: {total['gpu_hours']:.2f} GPU-h, {energy} kWh"


def _row(line: JSON) -> Sequence[str]:
    return (
        line["week"],
        line["user"],
        number_text(line["gpu_hours"], 2),
        number_text(line["gpu_hours_used"], 2),
        number_text(line["gpu_hours_idle"], 2),
        number_text(line["gib_hours"], 1),
        number_text(line["energy_kwh"], 3),
        number_text(line["cost"], 2),
        number_text(line["co2e_g"], 0),
        number_text(line["cpu_hours"], 2),
        _remark(line),
    )


def _remark(line: JSON) -> str:
    if line["is_simulated"]:
        return "simulated"
    coverage = line["energy_coverage"]
    remarks = []
    if line["energy_kwh"] is not None and coverage < FULL_COVERAGE:
        remarks.append(f"energy known for {coverage:.0%} of the time")
    if line["energy_estimated_kwh"]:
        estimated = number_text(line["energy_estimated_kwh"], 3)
        remarks.append(f"{estimated} kWh of it an estimate")
    return ", ".join(remarks)


def _since(at: float) -> str:
    if not at:
        return "since use was first recorded"
    day = datetime.fromtimestamp(at, UTC)
    return f"since {day:%Y-%m-%d}"


def advise(options: argparse.Namespace) -> int:
    """Which size would have done, for each of your notebooks."""
    answer = connect().call("advise", all=True)
    lines = [f"{advice['label']}: {advice['text']}" for advice in answer["advice"]]
    if not lines:
        lines = ["none of your notebooks has held a GPU in the last four weeks"]
    show(options, answer, lines)
    return 0
