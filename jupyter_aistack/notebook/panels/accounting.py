"""What the magics show of the books: what a kernel and its cells have used, and which
size would have done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jupyter_aistack.client.display import Panel
from jupyter_aistack.core.model.units import format_bytes, format_duration

JSON = Mapping[str, Any]
SHOWN_CELLS = 10


def bill_parts(bill: JSON) -> tuple[Panel, ...]:
    """A kernel's bill since its start, and its dearest cells; nothing where nothing was
    charged yet.
    """
    if not bill["leases"]:
        return ()
    total = Panel(title="Since this kernel began", rows=[*_total_rows(bill["total"])])
    return (total, *_cells_part(bill["cells"]))


def history_panel(bill: JSON) -> Panel:
    """A notebook's weeks, and its dearest cells over them."""
    rows = [
        (
            line["week"],
            f"{line['gpu_hours']:.2f}",
            _number(line["gpu_hours_used"], 2),
            *_costs(line),
        )
        for line in bill["weeks"]
    ]
    name = bill["label"] or "this kernel"
    if not rows:
        return Panel(title=f"Nothing was charged to {name} in the last seven days")
    headings = ("week", "GPU-h", "used", "kWh", "cost", "gCO2e")
    return Panel(
        title=f"What {name} has used",
        headings=headings,
        rows=rows,
        parts=_cells_part(bill["cells"]),
    )


def advice_panel(advice: Sequence[JSON]) -> Panel:
    """What a notebook should ask for next time."""
    one = advice[0]
    remark = (
        f"%gpu release, then %gpu request {one['advised']} asks for it."
        if one["advised"]
        else ""
    )
    return Panel(title=one["text"][0].upper() + one["text"][1:], remark=remark)


def _total_rows(total: JSON) -> Iterator[tuple[str, str]]:
    simulated = " (simulated)" if total["is_simulated"] else ""
    yield "GPU-hours", f"{total['gpu_hours']:.4f}{simulated}"
    yield "at work", _number(total["gpu_hours_used"], 4)
    yield "at 0 %", _number(total["gpu_hours_idle"], 4)
    yield "peak memory", _bytes(total["peak_bytes"])
    kwh = total["energy_kwh"]
    coverage = total["energy_coverage"]
    partly = (
        f", known for {coverage:.0%} of the time"
        if kwh is not None and coverage < 0.995
        else ""
    )
    yield "energy", _watt_hours(None if kwh is None else kwh * 1000) + partly
    for name, key, unit in (("cost", "cost", ""), ("carbon", "co2e_g", " g CO2e")):
        if total[key] is not None:
            yield name, f"{total[key]:.2f}{unit}"


def _cells_part(cells: Sequence[JSON]) -> tuple[Panel, ...]:
    named = [one for one in cells if one["cell"]]
    rows = [
        (
            f"[{one['cell'].partition(':')[0]}]",
            _watt_hours(one["energy_wh"]),
            format_duration(one["seconds"]),
            _bytes(one["peak_bytes"]),
        )
        for one in named[:SHOWN_CELLS]
    ]
    return (
        (
            Panel(
                title="Dearest cells",
                headings=("cell", "energy", "ran", "peak memory"),
                rows=rows,
            ),
        )
        if rows
        else ()
    )


def _costs(line: JSON) -> tuple[str, str, str]:
    return (
        _number(line["energy_kwh"], 3),
        _number(line["cost"], 2),
        _number(line["co2e_g"], 0),
    )


def _watt_hours(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f} Wh"


def _bytes(value: int | None) -> str:
    return "n/a" if value is None else format_bytes(value)


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"
