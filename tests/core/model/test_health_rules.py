"""When a temperature or a power limit is worth a warning, or takes a device out."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.model.condition import Severity
from jupyter_aistack.core.model.device_health import (
    DeviceFault,
    HealthCode,
    health_condition,
)
from jupyter_aistack.core.model.health_rules import (
    held_conditions,
    power_conditions,
    temperature_conditions,
)


@pytest.mark.parametrize(
    ("to_slowdown", "to_shutdown", "was_critical", "code"),
    [
        (None, None, True, None),
        (1, 4, False, None),
        (0, 3, False, HealthCode.TEMPERATURE_HIGH),
        (-1, 2, False, HealthCode.TEMPERATURE_CRITICAL),
        (None, 2, False, HealthCode.TEMPERATURE_CRITICAL),
        (0, 3, True, HealthCode.TEMPERATURE_CRITICAL),
        (1, 4, True, None),
        (-5, None, False, HealthCode.TEMPERATURE_HIGH),
    ],
)
def test_a_temperature_is_judged_by_what_is_left(
    to_slowdown: int | None,
    to_shutdown: int | None,
    was_critical: bool,
    code: HealthCode | None,
) -> None:
    conditions = temperature_conditions(
        to_slowdown, to_shutdown, was_critical=was_critical
    )
    assert [each.code for each in conditions] == ([] if code is None else [code])


@pytest.mark.parametrize(
    ("usual", "limit", "enforced", "severity"),
    [
        (700.0, 700.0, 700.0, None),
        (None, 300.0, 300.0, None),
        (700.0, None, None, None),
        (700.0, 750.0, 750.0, None),
        (700.0, 400.0, 400.0, Severity.INFO),
        (700.0, 400.0, None, Severity.INFO),
        (700.0, 700.0, 350.0, Severity.WARNING),
        (700.0, None, 350.0, Severity.WARNING),
    ],
)
def test_a_power_limit_warns_where_nobody_chose_it(
    usual: float | None,
    limit: float | None,
    enforced: float | None,
    severity: Severity | None,
) -> None:
    told = [each.severity for each in power_conditions(usual, limit, enforced)]
    assert told == ([] if severity is None else [severity])


def test_what_cannot_be_seen_holds_on() -> None:
    codes = (HealthCode.BAD_PAGES, HealthCode.XID_ERROR, HealthCode.ECC_UNCORRECTED)
    recorded = {
        code: DeviceFault(
            host="box", device_id="GPU-0", code=code, message="was sick", since=1.0
        )
        for code in codes
    }
    told = [health_condition(HealthCode.XID_ERROR, "is sick")]
    held = held_conditions(recorded, told, lambda code: code is HealthCode.BAD_PAGES)
    assert list(held) == [health_condition(HealthCode.BAD_PAGES, "was sick")]
