"""Sick AMD GPUs: the real `amdsmi` package over a fake library, changed live."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_aistack.core.model.condition import Severity
from jupyter_aistack.core.model.device_health import DeviceFault, HealthCode

SETUP = """
from jupyter_aistack.providers.amd.provider import AMDProvider
from jupyter_aistack.testing import ManualClock
clock = ManualClock()
provider = AMDProvider(clock=clock)
def look(seconds=60.0):
    # What there is after so much time.
    clock.advance(seconds)
    return provider.discover("box")
"""
UUID = "GPU-00000000000000a0"


def mi300x(**more: object) -> str:
    keys = {
        "uuid": UUID,
        "serial": "a0",
        "name": "AMD_Instinct_MI300X",
        "memory": 192 << 30,
        "cus": 304,
        **more,
    }
    return "gpu " + " ".join(f"{key}={value}" for key, value in keys.items()) + "\n"


def told(device: Any) -> list[tuple[HealthCode, Severity]]:
    return [(each.code, each.severity) for each in device.conditions]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"pages": "3:1:0"}, HealthCode.PAGE_RETIREMENT_PENDING),
        ({"pages": "3:0:1"}, HealthCode.BAD_PAGES),
        ({"pages": "64:0:0", "most_pages": 64}, HealthCode.BAD_PAGES),
        ({"temp": "103:100:105"}, HealthCode.TEMPERATURE_CRITICAL),
        ({"lost": 12}, HealthCode.FELL_OFF_BUS),
        ({"lost": 7}, HealthCode.FELL_OFF_BUS),
    ],
)
def test_a_sick_gpu_is_not_to_be_used_until_it_has_recovered(
    fake_amdsmi: Any, state: dict[str, object], code: HealthCode
) -> None:
    child = fake_amdsmi.python(mi300x(pages="0:0:0", temp="60:100:105"), SETUP)
    assert child("look()")[0].is_healthy
    fake_amdsmi.change(mi300x(**{"pages": "0:0:0", "temp": "60:100:105", **state}))
    (sick,) = child("look()")
    assert (told(sick), sick.is_healthy) == ([(code, Severity.ERROR)], False)
    assert sick.problem == sick.conditions[0].message
    assert sick.conditions[0].since == child("clock()")
    fake_amdsmi.change(mi300x(pages="0:0:0", temp="60:100:105"))
    assert child("look(31.0)")[0].is_healthy, "seen at once"


@pytest.mark.parametrize(
    ("state", "code", "severity"),
    [
        ({"ecc": "7:1"}, HealthCode.ECC_UNCORRECTED, Severity.WARNING),
        ({"temp": "100:100:105"}, HealthCode.TEMPERATURE_HIGH, Severity.WARNING),
        ({"hot": 1}, HealthCode.THERMAL_SLOWDOWN, Severity.WARNING),
        (
            {"cap": 500_000_000, "usual": 750_000_000},
            HealthCode.POWER_LIMITED,
            Severity.INFO,
        ),
        ({"cap": 500, "usual": 750}, HealthCode.POWER_LIMITED, Severity.INFO),
    ],
)
def test_what_is_worth_a_warning_takes_no_gpu_out_of_placement(
    fake_amdsmi: Any, state: dict[str, object], code: HealthCode, severity: Severity
) -> None:
    (device,) = fake_amdsmi.python(mi300x(**state), SETUP)("look()")
    assert (told(device), device.is_healthy) == ([(code, severity)], True)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"ecc": "7:0", "pages": "5:0:0", "most_pages": 64},
        {"temp": "0:0:0"},
        {"temp": "65535:100:105"},
        {"hot": 0},
        {"hot": 2},  # the library's "N/A"
        {"cap": 0, "usual": 750_000_000},
        {"cap": 750_000_000, "usual": 750_000_000},
    ],
)
def test_what_is_unknown_or_usual_is_no_condition(
    fake_amdsmi: Any, state: dict[str, object]
) -> None:
    (device,) = fake_amdsmi.python(mi300x(**state), SETUP)("look()")
    assert (told(device), device.is_healthy) == ([], True)


def test_each_question_that_fails_hides_no_other(fake_amdsmi: Any) -> None:
    fails = "".join(
        f"fail amdsmi_get_{name} 7\n"
        for name in ("gpu_bad_page_info", "temp_metric", "violation_status")
    )
    state = mi300x(ecc="7:1", pages="3:1:0", temp="104:100:105", hot=1)
    (device,) = fake_amdsmi.python(state + fails, SETUP)("look()")
    assert told(device) == [(HealthCode.ECC_UNCORRECTED, Severity.WARNING)]
    assert device.health.figures.temperature_celsius is None


def test_its_figures_are_told(fake_amdsmi: Any) -> None:
    state = mi300x(ecc="7:1", temp="60:100:105", cap=700_000_000, usual=750_000_000)
    figures = fake_amdsmi.python(state, SETUP)("look()")[0].health.figures
    assert (figures.ecc_corrected, figures.ecc_uncorrected) == (7, 1)
    assert (figures.temperature_celsius, figures.shutdown_celsius) == (60, 105)
    assert (figures.power_limit_watts, figures.default_limit_watts) == (700.0, 750.0)
    assert figures.xid is None


def test_a_gpu_that_is_well_is_looked_at_now_and_then(fake_amdsmi: Any) -> None:
    child = fake_amdsmi.python(mi300x(temp="60:100:105", pages="0:0:0"), SETUP)
    child("look()")
    fake_amdsmi.change(mi300x(temp="100:100:105", pages="1:1:0"))
    assert told(child("look(9.0)")[0]) == []
    assert told(child("look(1.0)")[0]) == [
        (HealthCode.TEMPERATURE_HIGH, Severity.WARNING)
    ]
    assert not child("look(50.0)")[0].is_healthy


@pytest.mark.parametrize(
    ("state", "code", "is_healthy"),
    [
        ({}, HealthCode.BAD_PAGES, False),
        ({"pages": "0:0:0"}, HealthCode.BAD_PAGES, True),
        ({}, HealthCode.TEMPERATURE_CRITICAL, False),
        ({"temp": "60:100:105"}, HealthCode.TEMPERATURE_CRITICAL, True),
        ({"temp": "101:100:105"}, HealthCode.TEMPERATURE_CRITICAL, False),
        ({}, HealthCode.FELL_OFF_BUS, True),
    ],
)
def test_what_is_written_down_is_over_when_the_library_says_so(
    fake_amdsmi: Any, state: dict[str, object], code: HealthCode, is_healthy: bool
) -> None:
    fault = DeviceFault(
        host="box", device_id=UUID, code=code, message="was sick", since=900.0
    )
    child = fake_amdsmi.python(mi300x(**state), SETUP)
    child("provider.restore_faults(faults)", faults=[fault])
    (device,) = child("look()")
    assert device.is_healthy is is_healthy
    assert [each.since for each in device.conditions] == [900.0] * (not is_healthy)


def test_a_share_of_it_is_no_less_than_a_process_takes(fake_amdsmi: Any) -> None:
    (device,) = fake_amdsmi.python(mi300x(), SETUP)("look()")
    assert device.least_share_bytes > 0
