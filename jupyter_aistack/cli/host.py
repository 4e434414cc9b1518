"""Commands that look at the host: doctor, status, usage."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence

from jupyter_aistack._version import __version__
from jupyter_aistack.client.text import aligned, lease_remarks
from jupyter_aistack.core.model.units import format_bytes, format_duration, format_share

from . import accounting
from .connection import connect
from .output import JSON, device_state_text, show


def doctor(options: argparse.Namespace) -> int:
    """What is wrong is shown, and makes the exit code 1."""
    client = connect()
    host = client.host()
    report = {
        "version": __version__,
        "transport": client.transport,
        "host": host["host"],
        "suspend": host["suspend"],
        "problems": [
            *host["problems"],
            *(d["problem"] for d in host["devices"] if d["problem"]),
        ],
        "devices": [
            {**device, "enforcement": enforcement(device)} for device in host["devices"]
        ],
    }
    show(options, report, _doctor_lines(report))
    return 1 if report["problems"] else 0


def _doctor_lines(report: JSON) -> Iterable[str]:
    yield f"jupyter_aistack {report['version']} on {report['host']}, by {report['transport']}"
    for device in report["devices"]:
        yield f"{_device_name(device)}: {format_bytes(device['memory_bytes'])}"
        yield from (f"  {what}: {by}" for what, by in device["enforcement"].items())
        yield from (
            f"  not {levels}: {why}" for levels, why in _not_reached(device["why_not"])
        )
        yield from (f"  advice: {advice}" for advice in [device["advice"]] if advice)
    why = f": {report['suspend']['why']}" if report["suspend"]["why"] else ""
    yield f"suspending idle kernels: {report['suspend']['tier']}{why}"
    yield from (f"problem: {problem}" for problem in report["problems"])
    if not report["problems"]:
        yield "no problems found"


def _not_reached(why_not: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Levels and why they are not reached, those with one reason together."""
    for why in dict.fromkeys(why_not.values()):
        yield (
            ", ".join(level for level, reason in why_not.items() if reason == why),
            why,
        )


def enforcement(device: JSON) -> dict[str, str]:
    """What would hold each kind of slice of a device to its size."""
    from jupyter_aistack.core.model.device import Enforcement
    from jupyter_aistack.providers.nvidia import mig

    if device["simulated"]:
        return {"any slice": Enforcement.SIMULATED.label}
    if device["kind"] == "cpu":
        return {"share": Enforcement.CPU.label}
    if device["mig_enabled"]:
        return {
            m["profile"]: mig.enforcement(m["gpu_slices"], m["compute_slices"]).label
            for m in device["mig"]
        }
    whole = {"whole": Enforcement.WHOLE.label}
    level = Enforcement(device["level"] or Enforcement.L0)
    return (
        {**whole, "share": f"{level.value}, {level.label}"}
        if device["is_divisible"]
        else whole
    )


def status(options: argparse.Namespace) -> int:
    """Devices, and who holds what."""
    client = connect()
    report = {"host": client.host(), "leases": client.leases()}
    show(options, report, _status_lines(report, time.time()))
    return 0


def _status_lines(report: JSON, now: float) -> Iterable[str]:
    for device in report["host"]["devices"]:
        problem = f", {device['problem']}" if device["problem"] else ""
        free = f"{format_bytes(device['memory_bytes'])}, {format_share(device['free_fraction'])} free"
        yield f"{_device_name(device)}: {free}{problem}"
        rows = [
            row
            for lease in report["leases"]
            for row in _lease_rows(lease, device["id"], now)
        ]
        yield from (f"  {line}" for line in aligned(rows))
    yield from (f"problem: {problem}" for problem in report["host"]["problems"])


def _lease_rows(lease: JSON, device_id: str, now: float) -> Iterable[Sequence[str]]:
    for piece in lease["slices"]:
        if piece["device_id"] == device_id:
            size = piece["profile"] or format_share(piece["fraction"])
            said = "; ".join(filter(None, [lease["enforcement"], lease_remarks(lease)]))
            where = device_state_text(lease) or lease["state"]
            memory = format_bytes(piece["memory_bytes"])
            yield (
                lease["id"],
                f"{size}, {memory}",
                where,
                _who(lease),
                f"{said}{_leaving(lease, now)}",
            )


def _who(lease: JSON) -> str:
    holder = lease["holder"]
    return (
        f"{holder['label'] or holder['kind'] + ' ' + holder['id']} ({holder['user']})"
    )


def _leaving(lease: JSON, now: float) -> str:
    """The word that a lease will be taken back."""
    notice = lease["notice"]
    if notice is None:
        return ""
    why = "nobody uses it" if notice["kind"] == "idle" else "its room is needed"
    return f"  taken back in {format_duration(notice['ends_at'] - now)}: {why}"


def usage(options: argparse.Namespace) -> int:
    """What is in use now; with ``--report``, or an option of it, what was used."""
    if (
        options.report
        or options.all
        or options.user
        or options.week
        or options.since
        or options.csv
    ):
        return accounting.report(options)
    client = connect()
    found = client.usage()
    if options.json:
        show(options, found, [])
        return 0
    names = {device["id"]: _device_name(device) for device in client.host()["devices"]}
    whose = {lease["id"]: _who(lease) for lease in client.leases()}
    rows = [
        (names.get(name, name), "", *_use_cells(use))
        for name, use in found["devices"].items()
    ]
    rows += [
        (name, whose.get(name, ""), *_use_cells(use))
        for name, use in found["leases"].items()
    ]
    show(
        options,
        found,
        aligned([("", "who", "memory", "busy"), *rows])
        if rows
        else ["there is no device here"],
    )
    return 0


def _use_cells(use: JSON) -> tuple[str, str]:
    memory = "n/a" if use["memory_bytes"] is None else format_bytes(use["memory_bytes"])
    return memory, "n/a" if use["utilization"] is None else f"{use['utilization']:.0%}"


def _device_name(device: JSON) -> str:
    simulated = (
        " (simulated)"
        if device["simulated"] and "simulated" not in device["name"]
        else ""
    )
    number = f"GPU {device['index']}: " if device["kind"] == "gpu" else ""
    return f"{number}{device['name']}{simulated}"
