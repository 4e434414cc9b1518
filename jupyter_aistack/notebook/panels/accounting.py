"""Panels of accounting: what a kernel and its cells have used, and which size would
have done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jupyter_aistack.client.display import Panel
from jupyter_aistack.client.text import UNKNOWN, bytes_text, number_text
from jupyter_aistack.core.model.units import format_duration

JSON = Mapping[str, Any]
SHOWN_CELLS = 10
FULL_COVERAGE = 0.995
"""From this share on, the energy counts as known for the whole time."""


def bill_parts(bill: JSON) -> tuple[Panel, ...]:
    """A kernel's bill since its start, and its most expensive cells; nothing where
    nothing was charged yet.
    """
    if not bill["leases"]:
        return ()
    total = Panel(title="Since this kernel began", rows=[*_total_rows(bill["total"])])
    return (total, *_cells_part(bill["cells"]))


def history_panel(bill: JSON) -> Panel:
    """A notebook's weeks, and its most expensive cells over them."""
    name = bill["label"] or "this kernel"
    if not bill["weeks"]:
        return Panel(title=f"Nothing was charged to {name} in the last seven days")
    return Panel(
        title=f"What {name} has used",
        headings=("week", "GPU-h", "used", "kWh", "cost", "gCO2e"),
        rows=[_week_row(week) for week in bill["weeks"]],
        parts=_cells_part(bill["cells"]),
    )


def advice_panel(advice: Sequence[JSON]) -> Panel:
    """What a notebook should ask for next time."""
    first = advice[0]
    remark = ""
    if first["advised"]:
        remark = f"%gpu release, then %gpu request {first['advised']} asks for it."
    text = first["text"]
    return Panel(title=text[0].upper() + text[1:], remark=remark)


def _week_row(week: JSON) -> tuple[str, ...]:
    return (
        week["week"],
        f"{week['gpu_hours']:.2f}",
        number_text(week["gpu_hours_used"], 2),
        _about(number_text(week["energy_kwh"], 3), week["energy_estimated_kwh"]),
        number_text(week["cost"], 2),
        number_text(week["co2e_g"], 0),
    )


def _total_rows(total: JSON) -> Iterator[tuple[str, str]]:
    simulated = " (simulated)" if total["is_simulated"] else ""
    yield "GPU-hours", f"{total['gpu_hours']:.4f}{simulated}"
    yield "at work", number_text(total["gpu_hours_used"], 4)
    yield "at 0 %", number_text(total["gpu_hours_idle"], 4)
    yield "peak memory", bytes_text(total["peak_bytes"])
    yield "energy", _energy(total)
    if total["cost"] is not None:
        yield "cost", f"{total['cost']:.2f}"
    if total["co2e_g"] is not None:
        yield "carbon", f"{total['co2e_g']:.2f} g CO2e"


def _energy(total: JSON) -> str:
    kwh = total["energy_kwh"]
    if kwh is None:
        return UNKNOWN
    coverage = total["energy_coverage"]
    partly = ""
    if coverage < FULL_COVERAGE:
        partly = f", known for {coverage:.0%} of the time"
    return _watt_hours(kwh * 1000) + partly + _estimate(total["energy_estimated_kwh"])


def _estimate(kwh: float | None) -> str:
    return f", {_watt_hours(kwh * 1000)} of it an estimate" if kwh else ""


def _cells_part(cells: Sequence[JSON]) -> tuple[Panel, ...]:
    """A panel of the most expensive cells; none where no cell is known."""
    named = [cell for cell in cells if cell["cell"]]
    if not named:
        return ()
    part = Panel(
        title="Most expensive cells",
        headings=("cell", "energy", "ran", "peak memory"),
        rows=[_cell_row(cell) for cell in named[:SHOWN_CELLS]],
    )
    return (part,)


def _cell_row(cell: JSON) -> tuple[str, ...]:
    number = cell["cell"].partition(":")[0]
    return (
        f"[{number}]",
        _about(_watt_hours(cell["energy_wh"]), cell["energy_estimated_wh"]),
        format_duration(cell["seconds"]),
        bytes_text(cell["peak_bytes"]),
    )


def _about(text: str, estimated: float | None) -> str:
    """A figure, marked where a part of it is an estimate."""
    return f"about {text}" if estimated else text


def _watt_hours(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f} Wh"
