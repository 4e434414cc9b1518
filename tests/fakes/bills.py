"""Leases, their use and their bills as a server sends them."""

from __future__ import annotations

from typing import Any

from jupyter_aistack.system.users import current_user


def lease(
    name: str = "l-1", *, kind: str = "share", fraction: str = "1/4", **fields: Any
) -> dict[str, Any]:
    device = "CPU-box" if kind == "cpu" else "GPU-0"
    return {
        "id": name,
        "granted_at": 0.0,
        "ended_at": None,
        "holder": {
            "kind": "kernel",
            "id": "k-1",
            "user": current_user(),
            "parent": "",
        },
        "slices": [{"device_id": device, "kind": kind, "fraction": fraction}],
        **fields,
    }


def usage(
    *,
    memory: int | None = None,
    joules: float | None = None,
    leases: tuple[str, ...] = ("l-1",),
) -> dict[str, Any]:
    return {
        "devices": {"GPU-0": {"energy_joules": joules}},
        "leases": {name: {"memory_bytes": memory} for name in leases},
    }


def bill(
    joules: float,
    seconds: float,
    metered: float | None = None,
    *,
    estimated: float = 0.0,
    **rates: float,
) -> dict[str, Any]:
    known = seconds if metered is None else metered
    sums = {
        "gpu_seconds": seconds,
        "metered_seconds": known,
        "energy_joules": joules,
        "energy_estimated_joules": estimated,
    }
    no_rates = {
        "carbon_g_per_kwh": None,
        "price_per_kwh": None,
        "price_per_gpu_hour": None,
    }
    return {"leases": {"l-1": sums}, "rates": no_rates | rates}
