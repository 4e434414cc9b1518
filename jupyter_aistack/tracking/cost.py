"""What a piece of work cost: slice-hours, memory and energy."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from jupyter_aistack.client.display import Panel
from jupyter_aistack.core.accounting.usage_report import COVERED
from jupyter_aistack.core.model.request import HolderKind
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.system.users import current_user

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client

SECONDS_PER_HOUR = 3600
JOULES_PER_WATT_HOUR = 3600
WATT_HOURS_PER_KWH = 1000


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What was used. None means "cannot be known here", never zero.

    Attributes:
        gpu_slice_hours, cpu_slice_hours: share of a device times hours held, summed
            over leases.
        energy_wh: energy of the GPUs, as the broker divides it by share and activity;
            where it has recorded none, by share alone, and then None unless every
            device held has a counter.
        peak_memory_bytes: the most memory in use at once, over all leases
            together.
        co2e_g: grams of CO2 equivalent of that energy; None where the site has set no
            rate.
        cost: in the site's currency, of GPU-hours and energy; None where it has set no
            price.
        energy_by: how the energy was divided: by ``activity``, or, even in part, by
            ``share``, which makes it an estimate; empty where it is unknown.
    """

    gpu_slice_hours: float = 0.0
    cpu_slice_hours: float = 0.0
    energy_wh: float | None = None
    peak_memory_bytes: int | None = None
    co2e_g: float | None = None
    cost: float | None = None
    energy_by: str = ""

    @property
    def slice_hours(self) -> float:
        """GPU and CPU slice-hours together."""
        return self.gpu_slice_hours + self.cpu_slice_hours

    def as_dict(self) -> dict[str, float | int | None]:
        """The figures as JSON, with the sum."""
        figures = asdict(self)
        del figures["energy_by"]
        return {"slice_hours": self.slice_hours, **figures}

    def panel(self) -> Panel:
        """The figures for people."""
        energy = "cannot be measured here"
        if self.energy_wh is not None:
            energy = f"{self.energy_wh:.3f} Wh{_MARKS.get(self.energy_by, '')}"
        memory = "not measured"
        if self.peak_memory_bytes is not None:
            memory = format_bytes(self.peak_memory_bytes)
        rows = [
            ("GPU slice-hours", f"{self.gpu_slice_hours:.4f}"),
            ("CPU slice-hours", f"{self.cpu_slice_hours:.4f}"),
            ("energy", energy),
            ("peak memory", memory),
        ]
        if self.co2e_g is not None:
            rows.append(("carbon", f"{self.co2e_g:.2f} g CO2e"))
        if self.cost is not None:
            rows.append(("cost", f"{self.cost:.2f}"))
        return Panel(title="What it cost", rows=rows)

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> dict[str, str]:
        return self.panel()._repr_mimebundle_()


_MARKS = {"share": ", an estimate"}


def slice_hours(
    leases: Iterable[Mapping[str, Any]], start: float, end: float
) -> dict[str, float]:
    """Slice-hours by kind of device (``gpu``, ``cpu``) that `leases` held between
    `start` and `end`.

    Args:
        leases: leases as on the wire.
        start, end: seconds since the epoch.
    """
    hours = {"gpu": 0.0, "cpu": 0.0}
    for lease in leases:
        since = max(start, lease["granted_at"])
        until = end if lease["ended_at"] is None else min(end, lease["ended_at"])
        held_hours = max(0.0, until - since) / SECONDS_PER_HOUR
        for slice_ in lease["slices"]:
            kind = "cpu" if slice_["kind"] == "cpu" else "gpu"
            hours[kind] += float(Fraction(slice_["fraction"])) * held_hours
    return hours


def own_leases(
    leases: Iterable[Mapping[str, Any]], known: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Those of `leases` that belong to this kernel or process and its workers.

    Args:
        leases: any leases as on the wire, ended leases included.
        known: leases of this kernel's that the broker has named as such; they tell
            under which ids it is known.
    """
    user = current_user()
    ids = {os.environ.get("AISTACK_KERNEL") or f"pid-{os.getpid()}"}
    ids |= {lease["holder"]["parent"] or lease["holder"]["id"] for lease in known}
    return [
        lease
        for lease in leases
        if lease["holder"]["user"] == user and _is_of(lease["holder"], ids)
    ]


def _is_of(holder: Mapping[str, Any], ids: set[str]) -> bool:
    """Whether a holder is known under one of these ids, or below one; a worker or a run
    that is called so is another.
    """
    is_part = holder["kind"] in (HolderKind.WORKER.value, HolderKind.RUN.value)
    return holder["parent"] in ids or (holder["id"] in ids and not is_part)


def cost(client: Client | None = None, *, since: float = 0.0) -> Cost:
    """What this kernel and its workers have cost so far, from the ledger.

    Energy and peaks are those of its whole life, as far as they have been recorded;
    a part of it is measured by a run (:func:`~jupyter_aistack.tracking.track.track`),
    which has it in ``run.cost``.

    Args:
        client: whom to ask; the kernel's own by default.
        since: count from this moment (seconds since the epoch).
    """
    from jupyter_aistack.client import client as clients

    client = client or clients.connect()
    known = client.call("mine")["leases"]
    all_leases = client.call("leases", all=True)["leases"]
    hours = slice_hours(own_leases(all_leases, known), since, time.time())
    total = client.call("bill")["total"] if not since else {}
    is_known = (total.get("energy_coverage") or 0.0) >= COVERED
    return Cost(
        gpu_slice_hours=hours["gpu"],
        cpu_slice_hours=hours["cpu"],
        energy_wh=total["energy_kwh"] * WATT_HOURS_PER_KWH if is_known else None,
        peak_memory_bytes=total.get("peak_bytes"),
        co2e_g=total["co2e_g"] if is_known else None,
        cost=total.get("cost"),
        energy_by=_energy_by(total) if is_known else "",
    )


def _energy_by(total: Mapping[str, Any]) -> str:
    return "share" if total["energy_estimated_kwh"] else "activity"
