"""What is wrong with a device, and what follows of it."""

from __future__ import annotations

from jupyter_aistack.core.model.condition import Severity
from jupyter_aistack.core.model.device_health import (
    UNKNOWN_HEALTH,
    DeviceFault,
    DeviceHealth,
    HealthCode,
    HealthFigures,
    dated,
    faults_by_device,
    health_condition,
)


def test_what_is_an_error_is_a_problem_and_a_warning_is_none() -> None:
    health = DeviceHealth(
        conditions=(
            health_condition(HealthCode.XID_ERROR, "reported Xid 79"),
            health_condition(HealthCode.ROW_REMAP_PENDING, "has a faulty row"),
            health_condition(HealthCode.THERMAL_SLOWDOWN, "runs slowly"),
            health_condition(HealthCode.EVENTS_MISSING, "reports no errors"),
        )
    )
    assert health.problem == "reported Xid 79; has a faulty row"
    assert [condition.code for condition in health.errors] == [
        HealthCode.XID_ERROR,
        HealthCode.ROW_REMAP_PENDING,
    ]


def test_a_condition_is_as_grave_as_its_code_unless_it_is_said_to_be_less() -> None:
    code = HealthCode.POWER_LIMITED
    assert health_condition(code, "").severity is Severity.WARNING
    chosen = health_condition(code, "", severity=Severity.INFO)
    assert chosen.severity is Severity.INFO


def test_of_what_nothing_is_known_nothing_is_wrong() -> None:
    assert (UNKNOWN_HEALTH.problem, UNKNOWN_HEALTH.errors) == ("", ())
    assert UNKNOWN_HEALTH.figures.xid is None


def test_figures_are_no_part_of_what_a_device_is() -> None:
    assert DeviceHealth(figures=HealthFigures(xid=3)) == UNKNOWN_HEALTH


def test_conditions_are_in_order_of_gravity_and_keep_the_time_they_began() -> None:
    conditions = dated(
        [
            health_condition(HealthCode.POWER_BRAKE, "runs slowly"),
            health_condition(HealthCode.FELL_OFF_BUS, "is gone"),
        ],
        {HealthCode.POWER_BRAKE: 3.0, HealthCode.XID_ERROR: 1.0},
        9.0,
    )
    assert [(each.code, each.since) for each in conditions] == [
        (HealthCode.FELL_OFF_BUS, 9.0),
        (HealthCode.POWER_BRAKE, 3.0),
    ]


def test_faults_are_told_apart_by_device_and_code() -> None:
    xid, bus, other = (
        DeviceFault(host="box", device_id=device, code=code, message="", since=1.0)
        for device, code in (
            ("GPU-0", HealthCode.XID_ERROR),
            ("GPU-0", HealthCode.FELL_OFF_BUS),
            ("GPU-1", HealthCode.XID_ERROR),
        )
    )
    assert faults_by_device([xid, other, bus]) == {
        "GPU-0": {HealthCode.XID_ERROR: xid, HealthCode.FELL_OFF_BUS: bus},
        "GPU-1": {HealthCode.XID_ERROR: other},
    }
