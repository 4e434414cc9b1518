"""What Prometheus is told of the health of devices."""

from __future__ import annotations

from collections.abc import Callable

from jupyter_aistack.core.model.device import Device

HEALTH_FIGURES: tuple[tuple[str, str, Callable[[Device], int | None]], ...] = (
    ("healthy", "1 where a device can be used, else 0.", lambda d: int(d.is_healthy)),
    (
        "xid_errors",
        "The last Xid error of a GPU; 0 for none since it is watched.",
        lambda device: device.health.xid,
    ),
    (
        "ecc_sbe_vol_total",
        "Corrected memory errors since the last reset.",
        lambda device: device.health.ecc_corrected,
    ),
    (
        "ecc_dbe_vol_total",
        "Uncorrected memory errors since the last reset.",
        lambda device: device.health.ecc_uncorrected,
    ),
    (
        "correctable_remapped_rows",
        "Memory rows remapped for corrected errors.",
        lambda device: device.health.rows_corrected,
    ),
    (
        "uncorrectable_remapped_rows",
        "Memory rows remapped for uncorrected errors.",
        lambda device: device.health.rows_uncorrected,
    ),
    (
        "row_remap_pending",
        "1 where a memory row waits for a reset to be remapped.",
        lambda device: device.health.is_remap_pending,
    ),
    (
        "row_remap_failure",
        "1 where a memory row could not be remapped.",
        lambda device: device.health.is_remap_failed,
    ),
    (
        "clocks_event_reasons",
        "The driver's bit mask of what holds the clocks of a GPU down.",
        lambda device: device.health.clock_reasons,
    ),
    (
        "gpu_temp",
        "Temperature of a GPU in degrees Celsius.",
        lambda device: device.health.temperature_celsius,
    ),
)
"""Health by device, named as DCGM's exporter names its fields."""
