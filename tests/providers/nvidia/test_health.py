"""Sick GPUs: the real nvidia-ml-py over a fake driver, changed live."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_aistack.core.model.condition import Severity
from jupyter_aistack.core.model.device_health import DeviceFault, HealthCode
from tests.fakes.nvml.states import CLOCKED, h200

LOOK = "look()"
SECOND = "look(1.0)"
HEALTHY: dict[str, object] = {"recovery": 0, "remap": "0:0:0:0", "ecc": "0:0"}


def codes(device: Any) -> list[HealthCode]:
    return [condition.code for condition in device.conditions]


def fault(evidence: str, code: HealthCode = HealthCode.XID_ERROR) -> DeviceFault:
    message = "reported an error"
    return DeviceFault(
        host="box",
        device_id="GPU-0",
        code=code,
        message=message,
        since=900.0,
        evidence=evidence,
    )


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ({"recovery": 1}, HealthCode.RECOVERY_NEEDED, "reset it"),
        ({"recovery": 2}, HealthCode.RECOVERY_NEEDED, "rebooted"),
        ({"recovery": 8}, HealthCode.RECOVERY_NEEDED, "action 8"),
        ({"remap": "0:1:1:0"}, HealthCode.ROW_REMAP_PENDING, "faulty memory row"),
        ({"remap": "0:9:0:1"}, HealthCode.ROW_REMAP_FAILURE, "replaced"),
        ({"retire": 1}, HealthCode.PAGE_RETIREMENT_PENDING, "memory page"),
        ({"ecc": "3:1"}, HealthCode.ECC_UNCORRECTED, "uncorrectable"),
        ({"temp": 93}, HealthCode.TEMPERATURE_CRITICAL, "too hot"),
        ({"temp": 95}, HealthCode.TEMPERATURE_CRITICAL, "too hot"),
    ],
)
def test_a_sick_gpu_is_not_to_be_used_until_it_has_recovered(
    fake_nvml, state: dict[str, object], code: HealthCode, words: str
) -> None:
    limits = {"slowdown": 92, "shutdown": 95}
    child = fake_nvml.python(h200(**limits) + h200(1), CLOCKED)
    assert all(device.is_healthy for device in child(LOOK))
    fake_nvml.change(h200(**limits, **state) + h200(1))
    sick, other = child(LOOK)
    assert (codes(sick), sick.is_healthy) == ([code], False)
    (condition,) = sick.conditions
    assert (condition.severity, condition.since) == (Severity.ERROR, child("clock()"))
    assert words in sick.problem
    assert (codes(other), other.problem) == ([], ""), "and hides no other"
    assert child(LOOK)[0].conditions == (condition,), "since when it was first seen"

    fake_nvml.change(h200(**limits) + h200(1))
    assert all(device.is_healthy for device in child(SECOND)), "seen at once"


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"clocks": 0x40}, HealthCode.THERMAL_SLOWDOWN),
        ({"clocks": 0x20}, HealthCode.THERMAL_SLOWDOWN),
        ({"clocks": 0x48}, HealthCode.THERMAL_SLOWDOWN),
        ({"clocks": 0x80}, HealthCode.POWER_BRAKE),
        ({"clocks": 0x08}, HealthCode.HARDWARE_SLOWDOWN),
        ({"temp": 92, "slowdown": 92, "shutdown": 95}, HealthCode.TEMPERATURE_HIGH),
        ({"margin": "-2:-2:-8"}, HealthCode.TEMPERATURE_HIGH),
        ({"enforced_mw": 300_000}, HealthCode.POWER_LIMITED),
    ],
)
def test_a_gpu_that_is_slowed_down_is_said_to_be_and_used(
    fake_nvml, state: dict[str, object], code: HealthCode
) -> None:
    (device,) = fake_nvml.python(h200(**state), CLOCKED)(LOOK)
    assert (codes(device), device.is_healthy) == ([code], True)
    assert device.conditions[0].severity is Severity.WARNING


@pytest.mark.parametrize(
    "state",
    [
        {"clocks": 0x4},  # met by every GPU that is fully at work
        {"clocks": 0x1},
        {"temp": 91, "slowdown": 92, "shutdown": 95},
        {"margin": "0:-2:-8"},
        {"temp": 0, "slowdown": 0, "shutdown": 0},  # figures of no sensor
        {"temp": 4294967295, "slowdown": 92, "shutdown": 95},
        {"enforced_mw": 0, "limit_mw": 0},
        {"enforced_mw": 4294967295, "limit_mw": 4294967295, "default_mw": 4294967295},
    ],
)
def test_what_is_usual_or_no_figure_is_no_condition(
    fake_nvml, state: dict[str, object]
) -> None:
    (device,) = fake_nvml.python(h200(**state), CLOCKED)(LOOK)
    assert (codes(device), device.is_healthy) == ([], True)


def test_a_power_limit_that_an_administrator_chose_is_no_reason_to_warn(
    fake_nvml,
) -> None:
    state = h200(limit_mw=400_000, enforced_mw=400_000)
    (device,) = fake_nvml.python(state, CLOCKED)(LOOK)
    (condition,) = device.conditions
    assert condition.code is HealthCode.POWER_LIMITED
    assert condition.severity is Severity.INFO
    assert condition.message == "is held to 400 of its usual 700 W by its power limit"


def test_a_gpu_near_its_shutdown_is_used_again_once_it_has_cooled_down(
    fake_nvml,
) -> None:
    def at(degrees: int) -> str:
        return h200(temp=degrees, slowdown=92, shutdown=95)

    child = fake_nvml.python(at(92), CLOCKED)
    assert codes(child(LOOK)[0]) == [HealthCode.TEMPERATURE_HIGH]
    fake_nvml.change(at(94))
    assert codes(child(LOOK)[0]) == [HealthCode.TEMPERATURE_CRITICAL]
    fake_nvml.change(at(92))
    assert codes(child(LOOK)[0]) == [HealthCode.TEMPERATURE_CRITICAL], "it may rise"
    fake_nvml.change(at(91))
    assert codes(child(LOOK)[0]) == []


def test_a_gpu_that_tells_margins_is_judged_by_them(fake_nvml) -> None:
    child = fake_nvml.python(h200(margin="-5:-2:-8"), CLOCKED)
    assert codes(child(LOOK)[0]) == [HealthCode.TEMPERATURE_HIGH]
    fake_nvml.change(h200(margin="-6:-2:-8"))
    assert codes(child(LOOK)[0]) == [HealthCode.TEMPERATURE_CRITICAL]


def test_contained_memory_errors_of_a_gpu_that_remaps_rows_are_counted(
    fake_nvml,
) -> None:
    state = h200(ecc="7:2", remap="1:2:0:0", temp=88, slowdown=92, shutdown=95)
    (device,) = fake_nvml.python(state, CLOCKED)(LOOK)
    figures = device.health.figures
    assert (device.is_healthy, codes(device)) == (True, [])
    assert (figures.ecc_corrected, figures.ecc_uncorrected) == (7, 2)
    assert (figures.rows_corrected, figures.rows_uncorrected) == (1, 2)
    assert (figures.temperature_celsius, figures.shutdown_celsius) == (88, 95)
    assert figures.power_limit_watts == figures.default_limit_watts == 700.0


def test_what_a_driver_does_not_tell_of_health_is_unknown_and_no_sickness(
    fake_nvml,
) -> None:
    functions = (
        "TotalEccErrors",
        "RemappedRows",
        "RetiredPagesPendingStatus",
        "CurrentClocksEventReasons",
        "CurrentClocksThrottleReasons",
        "FieldValues",
        "MarginTemperature",
        "SupportedEventTypes",
        "Temperature",
        "TemperatureThreshold",
        "TemperatureV",
        "PowerManagementDefaultLimit",
        "PowerManagementLimit",
        "EnforcedPowerLimit",
    )
    mute = "".join(f"fail nvmlDeviceGet{name} 3\n" for name in functions)
    (device,) = fake_nvml.python(h200() + mute, CLOCKED)(LOOK)
    assert device.is_healthy
    assert codes(device) == [HealthCode.EVENTS_MISSING]
    assert set(vars(device.health.figures).values()) == {None}


@pytest.mark.parametrize(
    ("code", "health_code"),
    [
        (8, HealthCode.POWER_MISSING),
        (11, HealthCode.INTERRUPT_PROBLEM),
        (15, HealthCode.FELL_OFF_BUS),
        (16, HealthCode.RECOVERY_NEEDED),
    ],
)
def test_a_gpu_that_answers_with_an_error_of_its_own_is_sick_by_a_code(
    fake_nvml, code: int, health_code: HealthCode
) -> None:
    child = fake_nvml.python(h200(), CLOCKED)
    child(LOOK)
    fake_nvml.change(h200(lost=code))
    (device,) = child(LOOK)
    assert codes(device) == [health_code]
    assert device.problem == device.conditions[0].message
    fake_nvml.change("session 2\n" + h200())
    assert child(LOOK)[0].is_healthy


def test_a_gpu_that_may_not_be_used_is_not_sick(fake_nvml) -> None:
    child = fake_nvml.python(h200(), CLOCKED)
    child(LOOK)
    fake_nvml.change(h200(lost=4))
    (device,) = child(LOOK)
    assert "may not be used" in device.problem
    assert codes(device) == []


def test_a_gpu_that_was_lost_before_it_was_ever_seen_has_no_name_to_be_sick_by(
    fake_nvml,
) -> None:
    (device,) = fake_nvml.python(h200(lost=15), CLOCKED)(LOOK)
    assert "fell off the bus" in device.problem
    assert codes(device) == [], "nobody would know when that name is well again"


# -- what is told as it happens ------------------------------------------------------------


def test_an_xid_error_of_the_gpu_closes_it_until_it_was_reset(fake_nvml) -> None:
    child = fake_nvml.python(h200(energy_mj=900) + h200(1), CLOCKED)
    assert [device.health.figures.xid for device in child(LOOK)] == [0, 0]
    xid = "xid gpu=0 code=95\n"
    fake_nvml.change(h200(energy_mj=950) + h200(1) + xid)
    sick, other = child("look_until(lambda found: found[0].health.figures.xid)")
    assert (sick.health.figures.xid, codes(sick)) == (95, [HealthCode.XID_ERROR])
    assert "Xid 95 (a memory error that could not be contained)" in sick.problem
    assert other.is_healthy
    fake_nvml.change(h200(energy_mj=990) + h200(1) + xid)
    assert not child(LOOK)[0].is_healthy, "time heals nothing"
    fake_nvml.change(h200(energy_mj=5) + h200(1) + xid)
    assert child(SECOND)[0].is_healthy, "its counters began anew: it was reset"


def test_an_xid_error_is_over_when_the_driver_asks_for_no_recovery_any_more(
    fake_nvml,
) -> None:
    child = fake_nvml.python(h200(recovery=0, energy_mj=-1), CLOCKED)
    child(LOOK)
    xid = "xid gpu=0 code=48\n"
    fake_nvml.change(h200(recovery=1, energy_mj=-1) + xid)
    (device,) = child("look_until(lambda found: found[0].health.figures.xid)")
    assert codes(device) == [HealthCode.RECOVERY_NEEDED, HealthCode.XID_ERROR]
    fake_nvml.change(h200(recovery=0, energy_mj=-1) + xid)
    assert child(SECOND)[0].is_healthy


@pytest.mark.parametrize("code", [13, 31, 43, 45, 63, 94])
def test_an_xid_error_of_a_program_is_counted_and_closes_nothing(
    fake_nvml, code: int
) -> None:
    child = fake_nvml.python(h200(), CLOCKED)
    child(LOOK)
    fake_nvml.change(h200() + f"xid gpu=0 code={code}\n")
    (device,) = child("look_until(lambda found: found[0].health.figures.xid)")
    assert (device.health.figures.xid, device.is_healthy) == (code, True)


def test_an_error_that_is_reported_has_its_gpu_looked_at_at_once(fake_nvml) -> None:
    child = fake_nvml.python(h200(events=10), CLOCKED)
    child(LOOK)
    fake_nvml.change(h200(events=10, remap="0:1:1:0"))
    assert child(SECOND)[0].is_healthy, "counters are looked at once a minute"
    fake_nvml.change(h200(events=10, remap="0:1:1:0") + "xid gpu=0 type=2\n")
    child("look_until(lambda found: not found[0].is_healthy)")
    assert child("look(0.0)")[0].health.figures.xid == 0, "it was no Xid error"


def test_events_outlive_a_driver_that_was_loaded_anew(fake_nvml) -> None:
    child = fake_nvml.python("session 1\n" + h200(), CLOCKED)
    child(LOOK)
    fake_nvml.change("session 2\n" + h200())
    assert child(LOOK)[0].is_healthy, "a set of the former session is used no more"
    fake_nvml.change("session 2\n" + h200() + "xid gpu=0 code=119\n")
    (device,) = child("look_until(lambda found: found[0].health.figures.xid)")
    assert codes(device) == [HealthCode.XID_ERROR]


def test_a_gpu_that_fell_off_the_bus_comes_back_with_a_driver_opened_anew(
    fake_nvml,
) -> None:
    child = fake_nvml.python(h200(energy_mj=-1), CLOCKED)
    child(LOOK)
    fake_nvml.change(h200(energy_mj=-1) + "xid gpu=0 code=79\n")
    child("look_until(lambda found: not found[0].is_healthy)")
    fake_nvml.change(h200(lost=15))
    (device,) = child(LOOK)
    assert codes(device) == [HealthCode.FELL_OFF_BUS, HealthCode.XID_ERROR]
    fake_nvml.change("session 2\n" + h200(energy_mj=-1))
    assert child(LOOK)[0].is_healthy


@pytest.mark.parametrize("events", ["events=0", "events=2"])
def test_a_driver_without_events_is_looked_at_instead_and_said_to_be(
    fake_nvml, events: str
) -> None:
    kinds = int(events.removeprefix("events="))
    child = fake_nvml.python(h200(events=kinds), CLOCKED)
    (device,) = child(LOOK)
    (condition,) = device.conditions
    assert (condition.code, condition.severity) == (
        HealthCode.EVENTS_MISSING,
        Severity.INFO,
    )
    assert "every 10 s" in condition.message
    assert (device.is_healthy, device.health.figures.xid) == (True, None)
    fake_nvml.change(h200(events=kinds, remap="0:1:1:0"))
    assert child("look(9.0)")[0].is_healthy
    assert not child(SECOND)[0].is_healthy, "its counters with its state"


# -- what was written down -----------------------------------------------------------------

EVIDENCE = '{"xid":95,"millijoules":950,"is_recovery_seen":false}'


def test_an_error_that_another_process_was_told_lasts_until_a_reset(fake_nvml) -> None:
    child = fake_nvml.python(h200(energy_mj=990), CLOCKED)
    child("provider.restore_faults(faults)", faults=[fault(EVIDENCE)])
    (device,) = child(LOOK)
    assert "Xid 95 (a memory error that could not be contained)" in device.problem
    assert device.conditions[0].since == 900.0
    assert device.conditions[0].evidence == EVIDENCE
    fake_nvml.change(h200(energy_mj=5))
    assert child(LOOK)[0].is_healthy
    child("provider.restore_faults(faults)", faults=[fault(EVIDENCE)])
    assert child(LOOK)[0].is_healthy, "what is still written down is over"


def test_a_reset_while_no_process_looked_is_seen_by_the_counter(fake_nvml) -> None:
    child = fake_nvml.python(h200(energy_mj=30), CLOCKED)
    child("provider.restore_faults(faults)", faults=[fault(EVIDENCE)])
    assert child(LOOK)[0].is_healthy


@pytest.mark.parametrize("evidence", ["", "nonsense", "[]"])
def test_an_error_of_which_the_evidence_is_lost_lasts_until_a_reset_is_seen(
    fake_nvml, evidence: str
) -> None:
    child = fake_nvml.python(h200(energy_mj=990), CLOCKED)
    child("provider.restore_faults(faults)", faults=[fault(evidence)])
    assert codes(child(LOOK)[0]) == [HealthCode.XID_ERROR]
    fake_nvml.change(h200(energy_mj=5))
    assert child(LOOK)[0].is_healthy


def test_an_error_that_another_process_saw_to_be_over_is_over(fake_nvml) -> None:
    child = fake_nvml.python(h200(energy_mj=990), CLOCKED)
    child("provider.restore_faults(faults)", faults=[fault(EVIDENCE)])
    assert not child(LOOK)[0].is_healthy
    child("provider.restore_faults([])")
    assert child(LOOK)[0].is_healthy


@pytest.mark.parametrize(
    ("state", "code", "is_healthy"),
    [
        ({}, HealthCode.ROW_REMAP_PENDING, False),
        ({"remap": "0:1:0:0"}, HealthCode.ROW_REMAP_PENDING, True),
        ({}, HealthCode.RECOVERY_NEEDED, False),
        ({"recovery": 0}, HealthCode.RECOVERY_NEEDED, True),
        ({}, HealthCode.FELL_OFF_BUS, True),
    ],
)
def test_a_state_that_is_written_down_is_over_when_the_driver_says_so(
    fake_nvml, state: dict[str, object], code: HealthCode, is_healthy: bool
) -> None:
    """A driver that does not tell frees nothing."""
    child = fake_nvml.python(h200(**state), CLOCKED)
    child("provider.restore_faults(faults)", faults=[fault("", code)])
    assert child(LOOK)[0].is_healthy is is_healthy
