"""Sick GPUs: the real nvidia-ml-py over a fake driver, changed live."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_aistack.core.model.device_health import HealthCode
from tests.fakes.nvml.states import SETUP, h200

LOOK = "provider.discover('box')"
HEALTHY: dict[str, object] = {"recovery": 0, "remap": "0:0:0:0", "ecc": "0:0"}


def codes(device: Any) -> list[HealthCode]:
    return [condition.code for condition in device.health.conditions]


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ({"recovery": 1}, HealthCode.RECOVERY_NEEDED, "reset it"),
        ({"recovery": 2}, HealthCode.RECOVERY_NEEDED, "rebooted"),
        ({"remap": "0:1:1:0"}, HealthCode.ROW_REMAP_PENDING, "faulty memory row"),
        ({"remap": "0:9:0:1"}, HealthCode.ROW_REMAP_FAILURE, "replaced"),
        ({"retire": 1}, HealthCode.PAGE_RETIREMENT_PENDING, "memory page"),
        ({"ecc": "3:1"}, HealthCode.ECC_UNCORRECTED, "uncorrectable"),
    ],
)
def test_a_sick_gpu_is_not_to_be_used_until_it_has_recovered(
    fake_nvml, state: dict[str, object], code: HealthCode, words: str
) -> None:
    child = fake_nvml.python(h200(**state) + h200(1), SETUP)
    sick, other = child(LOOK)
    assert (codes(sick), sick.is_healthy) == ([code], False)
    assert words in sick.problem
    assert (codes(other), other.problem) == ([], ""), "and hides no other"
    (fault,) = child("provider.faults()")
    assert (fault.device_id, fault.pid, fault.is_device_wide) == ("GPU-0", None, True)
    assert fault.message == f"NVIDIA H200 {sick.problem}"

    fake_nvml.change(h200() + h200(1))
    assert all(device.is_healthy for device in child(LOOK))
    assert child("provider.faults()") == ()


@pytest.mark.parametrize(
    ("clocks", "code"),
    [(0x40, HealthCode.THERMAL_SLOWDOWN), (0x80, HealthCode.POWER_BRAKE)],
)
def test_a_gpu_that_is_slowed_down_is_said_to_be_and_used(
    fake_nvml, clocks: int, code: HealthCode
) -> None:
    (device,) = fake_nvml.python(h200(clocks=clocks), SETUP)(LOOK)
    assert (codes(device), device.is_healthy) == ([code], True)
    assert "runs slowly" in device.advice


def test_contained_memory_errors_of_a_gpu_that_remaps_rows_are_counted(
    fake_nvml,
) -> None:
    state = h200(ecc="7:2", remap="1:2:0:0", temp=88)
    (device,) = fake_nvml.python(state, SETUP)(LOOK)
    health = device.health
    assert (device.is_healthy, codes(device)) == (True, [])
    assert (health.ecc_corrected, health.ecc_uncorrected) == (7, 2)
    assert (health.rows_corrected, health.rows_uncorrected) == (1, 2)
    assert health.temperature_celsius == 88


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
        "SupportedEventTypes",
        "Temperature",
        "TemperatureV",
    )
    mute = "".join(f"fail nvmlDeviceGet{name} 3\n" for name in functions)
    (device,) = fake_nvml.python(h200() + mute, SETUP)(LOOK)
    assert (device.is_healthy, device.advice, codes(device)) == (True, "", [])
    figures = dict(vars(device.health))
    assert figures.pop("conditions") == ()
    assert set(figures.values()) == {None}


def test_an_xid_error_of_the_gpu_closes_it_until_it_was_reset(fake_nvml) -> None:
    child = fake_nvml.python(h200(energy_mj=900) + h200(1), SETUP)
    assert [device.health.xid for device in child(LOOK)] == [0, 0]
    xid = "xid gpu=0 code=95\n"
    fake_nvml.change(h200(energy_mj=950) + h200(1) + xid)
    sick, other = child(LOOK)
    assert (sick.health.xid, codes(sick)) == (95, [HealthCode.XID_ERROR])
    assert "Xid 95 (a memory error that could not be contained)" in sick.problem
    assert other.is_healthy
    fake_nvml.change(h200(energy_mj=990) + h200(1) + xid)
    assert not child(LOOK)[0].is_healthy, "time heals nothing"
    fake_nvml.change(h200(energy_mj=5) + h200(1) + xid)
    assert child(LOOK)[0].is_healthy, "its counters began anew: it was reset"


def test_an_xid_error_is_over_when_the_driver_asks_for_no_recovery_any_more(
    fake_nvml,
) -> None:
    child = fake_nvml.python(h200(recovery=0, energy_mj=-1), SETUP)
    child(LOOK)
    xid = "xid gpu=0 code=48\n"
    fake_nvml.change(h200(recovery=1, energy_mj=-1) + xid)
    assert codes(child(LOOK)[0]) == [HealthCode.RECOVERY_NEEDED, HealthCode.XID_ERROR]
    fake_nvml.change(h200(recovery=0, energy_mj=-1) + xid)
    assert child(LOOK)[0].is_healthy


@pytest.mark.parametrize("code", [13, 31, 43, 45, 63, 94])
def test_an_xid_error_of_a_program_is_counted_and_closes_nothing(
    fake_nvml, code: int
) -> None:
    child = fake_nvml.python(h200(), SETUP)
    child(LOOK)
    fake_nvml.change(h200() + f"xid gpu=0 code={code}\n")
    (device,) = child(LOOK)
    assert (device.health.xid, device.is_healthy) == (code, True)


def test_events_outlive_a_driver_that_was_loaded_anew(fake_nvml) -> None:
    child = fake_nvml.python("session 1\n" + h200(), SETUP)
    child(LOOK)
    fake_nvml.change("session 2\n" + h200())
    assert child(LOOK)[0].is_healthy, "a set of the former session is used no more"
    fake_nvml.change("session 2\n" + h200() + "xid gpu=0 code=119\n")
    assert codes(child(LOOK)[0]) == [HealthCode.XID_ERROR]


def test_a_gpu_that_fell_off_the_bus_is_told_to_its_holders_and_comes_back(
    fake_nvml,
) -> None:
    child = fake_nvml.python(h200(energy_mj=-1), SETUP)
    child(LOOK)
    fake_nvml.change(h200(energy_mj=-1) + "xid gpu=0 code=79\n")
    assert not child(LOOK)[0].is_healthy
    fake_nvml.change(h200(lost=15))
    (device,) = child(LOOK)
    assert codes(device) == [HealthCode.FELL_OFF_BUS]
    (fault,) = child("provider.faults()")
    assert fault.is_device_wide
    fake_nvml.change("session 2\n" + h200(energy_mj=-1))
    assert child(LOOK)[0].is_healthy
    assert child("provider.faults()") == ()
