"""What Prometheus is told of the health of devices."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from jupyter_aistack.broker.api.figures import HostFigures
from jupyter_aistack.core.model.device import Device, DeviceKind, Inventory
from jupyter_aistack.core.model.device_health import (
    DeviceHealth,
    HealthCode,
    HealthFigures,
    health_condition,
)
from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.server.rest.health_metrics import HEALTH_FIGURES
from jupyter_aistack.server.rest.metrics import exposition


def gpu(health: DeviceHealth, problem: str = "") -> Device:
    return Device(
        id="GPU-0",
        host="box",
        kind=DeviceKind.GPU,
        index=0,
        name="H200",
        memory_bytes=10,
        problem=problem,
        health=health,
    )


def told(device: Device) -> dict[str, float]:
    figures = HostFigures(at=0.0, inventory=Inventory(host="box", devices=(device,)))
    text = exposition(figures, {}).decode()
    names = {f"aistack_device_{name}" for name, _, _ in HEALTH_FIGURES}
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in names
    }


def test_a_sick_gpu_shows_what_is_wrong_with_it() -> None:
    figures = HealthFigures(
        xid=95,
        ecc_corrected=7,
        ecc_uncorrected=1,
        rows_corrected=2,
        rows_uncorrected=1,
        is_remap_pending=True,
        is_remap_failed=False,
        clock_reasons=0x40,
        temperature_celsius=88,
        slowdown_celsius=92,
        shutdown_celsius=95,
        power_limit_watts=700.0,
        enforced_limit_watts=350.5,
        default_limit_watts=700.0,
    )
    health = DeviceHealth(figures=figures)
    assert told(gpu(health, problem="reported Xid 95")) == {
        "aistack_device_drained": 0,
        "aistack_device_healthy": 0,
        "aistack_device_xid_errors": 95,
        "aistack_device_ecc_sbe_vol_total": 7,
        "aistack_device_ecc_dbe_vol_total": 1,
        "aistack_device_correctable_remapped_rows": 2,
        "aistack_device_uncorrectable_remapped_rows": 1,
        "aistack_device_row_remap_pending": 1,
        "aistack_device_row_remap_failure": 0,
        "aistack_device_clocks_event_reasons": 0x40,
        "aistack_device_gpu_temp": 88,
        "aistack_device_slowdown_temp": 92,
        "aistack_device_shutdown_temp": 95,
        "aistack_device_power_mgmt_limit": 700,
        "aistack_device_enforced_power_limit": 350.5,
        "aistack_device_power_mgmt_limit_def": 700,
    }


def test_what_a_driver_does_not_tell_is_left_out() -> None:
    assert told(gpu(DeviceHealth())) == {
        "aistack_device_drained": 0,
        "aistack_device_healthy": 1,
    }


def test_a_device_that_is_out_of_placement_by_hand_is_told() -> None:
    drain = Drain(device_id="GPU-0", host="box", since=0.0)
    assert told(replace(gpu(DeviceHealth()), drain=drain)) == {
        "aistack_device_drained": 1,
        "aistack_device_healthy": 1,
    }


def test_each_condition_is_told_by_its_code_and_severity() -> None:
    conditions = (
        health_condition(HealthCode.XID_ERROR, "reported Xid 95"),
        health_condition(HealthCode.POWER_BRAKE, "runs slowly"),
    )
    device = gpu(DeviceHealth(conditions=conditions))
    figures = HostFigures(at=0.0, inventory=Inventory(host="box", devices=(device,)))
    samples = [
        sample
        for family in text_string_to_metric_families(exposition(figures, {}).decode())
        for sample in family.samples
        if sample.name == "aistack_device_health_condition"
    ]
    told_of = {
        (
            each.labels["device"],
            each.labels["code"],
            each.labels["severity"],
        ): each.value
        for each in samples
    }
    assert told_of == {
        ("GPU-0", "XidError", "error"): 1,
        ("GPU-0", "PowerBrake", "warning"): 1,
    }
