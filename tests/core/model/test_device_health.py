"""What is wrong with a device, and what follows of it."""

from __future__ import annotations

from jupyter_aistack.core.model.device_health import (
    UNKNOWN_HEALTH,
    DeviceHealth,
    HealthCode,
    HealthCondition,
)


def condition(code: HealthCode, message: str) -> HealthCondition:
    return HealthCondition(code=code, message=message)


def test_what_is_fatal_is_a_problem_and_the_rest_is_advice() -> None:
    health = DeviceHealth(
        conditions=(
            condition(HealthCode.XID_ERROR, "reported Xid 79"),
            condition(HealthCode.ROW_REMAP_PENDING, "has a faulty row"),
            condition(HealthCode.THERMAL_SLOWDOWN, "runs slowly"),
        )
    )
    assert health.problem == "reported Xid 79; has a faulty row"
    assert health.advice == "runs slowly"


def test_of_what_nothing_is_known_nothing_is_wrong() -> None:
    assert (UNKNOWN_HEALTH.problem, UNKNOWN_HEALTH.advice) == ("", "")
    assert UNKNOWN_HEALTH.xid is None
