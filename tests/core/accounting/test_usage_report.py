from __future__ import annotations

from typing import Any

import pytest

from jupyter_aistack.core.accounting.charges import LEVELS, NO_LEVELS, UsageRecord
from jupyter_aistack.core.accounting.usage_report import (
    SYSTEM_USER,
    Rates,
    cells,
    days_of_week,
    figures,
    lines,
    week_name,
)
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import InvalidRequest

DAY = 20_785  # Saturday 2026-11-28
QUIET_HOUR = (3600.0, *NO_LEVELS[1:])


def charge(**fields: Any) -> UsageRecord:
    text: dict[str, Any] = {
        "lease_id": "l-1",
        "user": "ann",
        "day": DAY,
        "seconds": 3600.0,
        "share_seconds": 1800.0,
    }
    return UsageRecord(**{"host": "box", "device_id": "GPU-0"} | text | fields)


def test_hours_energy_and_memory_add_up():
    whole = figures(
        [
            charge(
                millijoules=1_800_000_000,
                metered_seconds=3600.0,
                busy_seconds=360.0,
                levels=QUIET_HOUR,
            ),
            charge(
                lease_id="l-2",
                millijoules=1_800_000_000,
                metered_seconds=3600.0,
                peak_bytes=5,
            ),
            charge(
                byte_seconds=2 * GIB * 3600.0,
                memory_seconds=3600.0,
                peak_bytes=7,
                metered_seconds=3600.0,
            ),
            charge(kind="cpu", device_id="CPU-box"),
        ],
        Rates(carbon_g_per_kwh=300.0, price_per_kwh=0.5, price_per_gpu_hour=2.0),
    )
    assert (whole.gpu_hours, whole.cpu_hours) == (1.5, 0.5)
    assert (whole.gpu_hours_used, whole.gpu_hours_idle) == (0.1, 0.5)
    assert (whole.gib_hours, whole.peak_bytes) == (2.0, 7)
    assert (whole.energy_kwh, whole.energy_coverage, whole.co2e_g) == (1.0, 1.0, 300.0)
    assert whole.cost == 1.5 * 2.0 + 0.5
    assert whole.activity_coverage == pytest.approx(1 / 3)


def test_what_is_unknown_is_none():
    nothing = figures(
        [charge()],
        Rates(carbon_g_per_kwh=300.0, price_per_kwh=0.5, price_per_gpu_hour=2.0),
    )
    assert (
        nothing.energy_kwh,
        nothing.co2e_g,
        nothing.cost,
        nothing.gpu_hours_used,
    ) == (None, None, None, None)
    assert (nothing.gpu_hours_idle, nothing.gib_hours, nothing.peak_bytes) == (
        None,
        None,
        None,
    )
    assert figures([charge()], Rates(price_per_gpu_hour=2.0)).cost == 1.0
    assert figures([charge(millijoules=7, metered_seconds=1.0)], Rates()).cost is None
    assert figures([], Rates(price_per_gpu_hour=2.0)).gpu_hours == 0.0


def test_energy_is_the_whole_only_where_nearly_all_is_known():
    half = figures([charge(millijoules=3600_000, metered_seconds=1800.0)], Rates())
    assert (half.energy_kwh, half.energy_coverage, half.whole_energy_kwh) == (
        0.001,
        0.5,
        None,
    )
    most = figures([charge(millijoules=3600_000, metered_seconds=3500.0)], Rates())
    assert most.whole_energy_kwh == 0.001


def test_lines_are_by_week_and_user_and_name_the_system():
    result = lines(
        [
            charge(),
            charge(day=DAY + 1),
            charge(day=DAY + 2),
            charge(user="bob", kind="simulated"),
            charge(lease_id="", user="", millijoules=9, metered_seconds=1.0),
        ],
        Rates(),
    )
    assert [(line.week, line.user, line.figures.gpu_hours) for line in result] == [
        ("2026-W48", SYSTEM_USER, 0.0),
        ("2026-W48", "ann", 1.0),
        ("2026-W48", "bob", 0.5),
        ("2026-W49", "ann", 0.5),
    ]
    assert [line.figures.is_simulated for line in result] == [False, False, True, False]
    assert result[1].as_dict()["week"] == "2026-W48"


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("2026-W48", (20_780, 20_786)),
        (" 2026-w48 ", (20_780, 20_786)),
        ("2020-W53", (18_624, 18_630)),
    ],
)
def test_a_week_is_its_days(text: str, days: tuple[int, int]):
    assert days_of_week(text) == days
    assert week_name(days[0]) == week_name(days[1]) == text.strip().upper()


@pytest.mark.parametrize(
    "text",
    [
        "2026-W54",
        "2026-48",
        "",
        "-W1",
        "W48",
        "1969-W02",
        "99999-W1",
        "2026-W48-1",
        "ü",
    ],
)
def test_what_is_no_week_is_named(text: str):
    with pytest.raises(InvalidRequest, match=r"^week: .*write 2026-W48"):
        days_of_week(text)


def test_cells_come_dearest_first_and_one_cell_on_two_devices_runs_once():
    charges = [
        charge(cell="1:a", millijoules=3_600_000, metered_seconds=1.0, seconds=5.0),
        charge(
            cell="2:b",
            millijoules=7_200_000,
            metered_seconds=1.0,
            seconds=4.0,
            peak_bytes=3,
        ),
        charge(cell="2:b", device_id="GPU-1", seconds=4.0, peak_bytes=9),
        charge(cell="3:c", seconds=9.0),
        charge(lease_id="", millijoules=1),
    ]
    assert [
        (row["cell"], row["energy_wh"], row["seconds"], row["peak_bytes"])
        for row in cells(charges, 9)
    ] == [
        ("2:b", 2.0, 4.0, 9),
        ("1:a", 1.0, 5.0, None),
        ("3:c", None, 9.0, None),
    ]
    assert len(cells(charges, 2)) == 2
    assert len(LEVELS) == len(NO_LEVELS)
