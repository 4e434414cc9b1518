"""Commands that show the host: doctor, usage."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Mapping

from jupyter_aistack._version import __version__
from jupyter_aistack.client.text import (
    aligned,
    bytes_text,
    drain_text,
    health_text,
    lease_remarks,
    percent_text,
    share_text,
    stray_remark,
    stray_text,
)
from jupyter_aistack.core.model.units import format_bytes

from . import accounting
from .connection import connect
from .output import JSON, show
from .status import device_name, holder_name


def doctor(options: argparse.Namespace) -> int:
    """What is wrong is shown, and makes the exit code 1."""
    client = connect()
    host = client.host()
    devices = host["devices"]
    problems = [device["problem"] for device in devices if device["problem"]]
    report = {
        "version": __version__,
        "transport": client.transport,
        "host": host["host"],
        "suspend": host["suspend"],
        "problems": [*host["problems"], *problems],
        "devices": [
            {**device, "enforcement": enforcement(device)} for device in devices
        ],
        "strays": host["strays"],
        "ceilings": [lease for lease in client.leases() if lease["up_to"]],
    }
    show(options, report, _doctor_lines(report))
    return 1 if report["problems"] else 0


def _doctor_lines(report: JSON) -> Iterable[str]:
    yield f"jupyter_aistack {report['version']} on {report['host']}, by {report['transport']}"
    for device in report["devices"]:
        yield from _device_lines(device)
        yield from _ceiling_lines(device, report["ceilings"])
        yield from _stray_lines(device, report["strays"])
    suspend = report["suspend"]
    why = f": {suspend['why']}" if suspend["why"] else ""
    yield f"suspending idle kernels: {suspend['tier']}{why}"
    for problem in report["problems"]:
        yield f"problem: {problem}"
    if not report["problems"]:
        yield "no problems found"


def _device_lines(device: JSON) -> Iterator[str]:
    yield f"{device_name(device)}: {format_bytes(device['memory_bytes'])}"
    for what, by in device["enforcement"].items():
        yield f"  {what}: {by}"
    for levels, why in _not_reached(device["why_not"]):
        yield f"  not {levels}: {why}"
    if device.get("drain") is not None:
        yield f"  {drain_text(device)}; nothing new is granted on it"
    now = time.time()
    for condition in device["conditions"]:
        yield f"  health: {health_text(condition, now)}"
    if device["advice"]:
        yield f"  advice: {device['advice']}"


def _stray_lines(device: JSON, strays: Iterable[JSON]) -> Iterator[str]:
    """Who uses a device without a lease."""
    now = time.time()
    for stray in strays:
        if stray["device_id"] == device["id"]:
            who = stray["user"] or "an unknown user"
            remark = stray_remark(stray, now)
            rest = f"; {remark}" if remark else ""
            text = stray_text(stray, now)
            yield f"  without a lease: process {text}, of {who}{rest}"


def _ceiling_lines(device: JSON, leases: Iterable[JSON]) -> Iterator[str]:
    """The leases of a device that may use more than they were granted."""
    for lease in leases:
        for slice_ in lease["slices"]:
            if slice_["device_id"] == device["id"]:
                pending = lease_remarks(lease, ["LimitPending"])
                why = f" ({pending})" if pending else ""
                share = share_text(lease, slice_)
                yield f"  lease {lease['id']} of {holder_name(lease)}: {share}{why}"


def _not_reached(why_not: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Levels and why they are not reached, those with the same reason together."""
    levels_by_reason: dict[str, list[str]] = {}
    for level, reason in why_not.items():
        levels_by_reason.setdefault(reason, []).append(level)
    for reason, levels in levels_by_reason.items():
        yield ", ".join(levels), reason


def enforcement(device: JSON) -> dict[str, str]:
    """What would hold each kind of slice of a device to its size."""
    from jupyter_aistack.core.model.device import Enforcement

    if device["simulated"]:
        return {"any slice": Enforcement.SIMULATED.label}
    if device["kind"] == "cpu":
        return {"share": Enforcement.CPU.label}
    if device["mig_enabled"]:
        return _mig_enforcement(device["mig"])
    whole = {"whole": Enforcement.WHOLE.label}
    if not device["is_divisible"]:
        return whole
    level = Enforcement(device["level"] or Enforcement.L0)
    return {**whole, "share": f"{level.value}, {level.label}"}


def _mig_enforcement(instances: Iterable[JSON]) -> dict[str, str]:
    from jupyter_aistack.providers.nvidia import mig

    levels = {}
    for instance in instances:
        level = mig.enforcement(instance["gpu_slices"], instance["compute_slices"])
        levels[instance["profile"]] = level.label
    return levels


def usage(options: argparse.Namespace) -> int:
    """What is in use now; with ``--report``, or an option of it, what was used."""
    if _is_report(options):
        return accounting.report(options)
    client = connect()
    usage = client.usage()
    if options.json:
        show(options, usage, [])
        return 0

    names = {device["id"]: device_name(device) for device in client.host()["devices"]}
    holders = {lease["id"]: holder_name(lease) for lease in client.leases()}
    rows = [
        (names.get(id_, id_), "", *_use_cells(use))
        for id_, use in usage["devices"].items()
    ]
    rows += [
        (id_, holders.get(id_, ""), *_use_cells(use))
        for id_, use in usage["leases"].items()
    ]
    lines = ["there is no device here"]
    if rows:
        lines = aligned([("", "who", "memory", "busy"), *rows])
    show(options, usage, lines)
    return 0


def _is_report(options: argparse.Namespace) -> bool:
    """Whether what was used is asked for, by an option that only a report has."""
    names = ("report", "all", "user", "week", "since", "csv")
    return any(getattr(options, name) for name in names)


def _use_cells(use: JSON) -> tuple[str, str]:
    return bytes_text(use["memory_bytes"]), percent_text(use["utilization"])
