"""What Prometheus is told of the health of devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jupyter_aistack.core.model.device import Device

HEALTH_FIGURES: tuple[tuple[str, str, Callable[[Device], float | None]], ...] = (
    (
        "drained",
        "1 where nothing new is granted on a device by hand, else 0.",
        lambda d: int(d.drain is not None),
    ),
    ("healthy", "1 where a device can be used, else 0.", lambda d: int(d.is_healthy)),
    (
        "xid_errors",
        "The last Xid error of a GPU; 0 for none since it is watched.",
        lambda device: device.health.figures.xid,
    ),
    (
        "ecc_sbe_vol_total",
        "Corrected memory errors since the last reset.",
        lambda device: device.health.figures.ecc_corrected,
    ),
    (
        "ecc_dbe_vol_total",
        "Uncorrected memory errors since the last reset.",
        lambda device: device.health.figures.ecc_uncorrected,
    ),
    (
        "correctable_remapped_rows",
        "Memory rows remapped for corrected errors.",
        lambda device: device.health.figures.rows_corrected,
    ),
    (
        "uncorrectable_remapped_rows",
        "Memory rows remapped for uncorrected errors.",
        lambda device: device.health.figures.rows_uncorrected,
    ),
    (
        "row_remap_pending",
        "1 where a memory row waits for a reset to be remapped.",
        lambda device: device.health.figures.is_remap_pending,
    ),
    (
        "row_remap_failure",
        "1 where a memory row could not be remapped.",
        lambda device: device.health.figures.is_remap_failed,
    ),
    (
        "clocks_event_reasons",
        "The driver's bit mask of what holds the clocks of a GPU down.",
        lambda device: device.health.figures.clock_reasons,
    ),
    (
        "gpu_temp",
        "Temperature of a GPU in degrees Celsius.",
        lambda device: device.health.figures.temperature_celsius,
    ),
    (
        "slowdown_temp",
        "Where the hardware of a GPU slows it down, in degrees Celsius.",
        lambda device: device.health.figures.slowdown_celsius,
    ),
    (
        "shutdown_temp",
        "Where a GPU switches itself off, in degrees Celsius.",
        lambda device: device.health.figures.shutdown_celsius,
    ),
    (
        "power_mgmt_limit",
        "The power that an administrator allows a GPU, in watts.",
        lambda device: device.health.figures.power_limit_watts,
    ),
    (
        "enforced_power_limit",
        "The power that a GPU is held to, by whoever allows the least, in watts.",
        lambda device: device.health.figures.enforced_limit_watts,
    ),
    (
        "power_mgmt_limit_def",
        "The power limit that is usual for a GPU, in watts.",
        lambda device: device.health.figures.default_limit_watts,
    ),
)
"""Health by device, named as DCGM's exporter names its fields."""

CONDITION_LABELS = ("code", "severity")


def condition_rows(
    devices: Iterable[tuple[tuple[str, ...], Device]],
) -> list[tuple[tuple[str, ...], int]]:
    """1 for each condition that holds, as Kubernetes' exporter has it of nodes: by the
    labels of its device, then its code and severity.
    """
    return [
        ((*labels, condition.code.value, condition.severity.value), 1)
        for labels, device in devices
        for condition in device.conditions
    ]
