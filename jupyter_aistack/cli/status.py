"""``status``: the devices, and who holds what; of this host, or of all that share a
ledger.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence

from jupyter_aistack.client.text import (
    UNKNOWN,
    aligned,
    lease_remarks,
    own_stray_lines,
    share_text,
    stray_remark,
    stray_text,
    usable_bytes,
    warnings_text,
)
from jupyter_aistack.core.model.units import (
    format_bytes,
    format_duration,
    format_share,
)

from .connection import connect
from .output import JSON, device_state_text, moment, show


def status(options: argparse.Namespace) -> int:
    """Devices, and who holds what; with ``--all-hosts`` on all that share the ledger."""
    client = connect()
    if options.all_hosts:
        answer = client.hosts()
        show(options, answer, _all_hosts_lines(answer))
        return 0
    host = client.host()
    report = {"host": host, "devices": host["devices"], "leases": client.leases()}
    show(options, report, _status_lines(report, time.time()))
    return 0


def _status_lines(report: JSON, now: float) -> Iterable[str]:
    # First: it is the asker's own to put right.
    yield from own_stray_lines(report["host"], now)
    for device in report["host"]["devices"]:
        yield _device_line(device)
        rows: list[Sequence[str]] = []
        for lease in report["leases"]:
            rows.extend(_lease_rows(lease, device["id"], now))
        rows.extend(_stray_rows(report["host"], device["id"], now))
        yield from aligned(rows, indent="  ")
    for problem in report["host"]["problems"]:
        yield f"problem: {problem}"


def _device_line(device: JSON) -> str:
    memory = format_bytes(device["memory_bytes"])
    share = device["free_fraction"]
    free = f"{format_share(share)} free" if share is not None else ""
    parts = [memory, free, device["problem"], warnings_text(device)]
    return f"{device_name(device)}: {', '.join(filter(None, parts))}"


def _lease_rows(lease: JSON, device_id: str, now: float) -> Iterable[Sequence[str]]:
    where = device_state_text(lease) or lease["state"]
    remarks = "; ".join(filter(None, [lease["enforcement"], lease_remarks(lease)]))
    for slice_ in lease["slices"]:
        if slice_["device_id"] != device_id:
            continue
        size = slice_["profile"] or share_text(lease, slice_)
        memory = format_bytes(usable_bytes({**lease, "slices": [slice_]}))
        yield (
            lease["id"],
            f"{size}, {memory}",
            where,
            holder_name(lease),
            remarks + _notice(lease, now),
        )


def _stray_rows(host: JSON, device_id: str, now: float) -> Iterable[Sequence[str]]:
    """Who uses a device without a lease, in the columns of the leases."""
    for stray in host["strays"]:
        if stray["device_id"] == device_id:
            user = stray["user"] or UNKNOWN
            remark = stray_remark(stray, now)
            process = f"process {stray_text(stray, now)}"
            yield ("without a lease", process, "", user, remark)


def _all_hosts_lines(answer: JSON) -> Iterable[str]:
    now = answer["at"]
    for host in answer["hosts"]:
        yield _host_line(host, now)
        for device in host["devices"]:
            yield f"  {_device_line({**device, 'conditions': []})}"
            rows: list[Sequence[str]] = []
            for lease in host["leases"]:
                rows.extend(_lease_rows(lease, device["id"], now))
            yield from aligned(rows, indent="    ")
        yield from _waiting_lines(host, now)


def _host_line(host: JSON, now: float) -> str:
    if host["is_here"]:
        return f"{host['name']} (this host)"
    if host["seen_at"] is None:
        return f"{host['name']}, never heard of: what is free there is not known"
    ago = format_duration(max(0.0, now - host["seen_at"]))
    if host["is_heard"]:
        return f"{host['name']}, heard of {ago} ago"
    since = moment(host["seen_at"])
    return (
        f"{host['name']}, not heard of since {since} ({ago}): what is free there is not"
        " known"
    )


def _waiting_lines(host: JSON, now: float) -> Iterable[str]:
    waiting = host["queue"]
    if not waiting:
        return
    rows = [
        (
            request["spec"],
            request["holder"]["user"],
            request["queue"],
            f"for {format_duration(max(0.0, now - request['submitted_at']))}",
        )
        for request in waiting
    ]
    yield f"  {len(waiting)} waiting"
    yield from aligned(rows, indent="    ")


def holder_name(lease: JSON) -> str:
    """Who holds a lease, for people."""
    holder = lease["holder"]
    name = holder["label"] or f"{holder['kind']} {holder['id']}"
    return f"{name} ({holder['user']})"


def _notice(lease: JSON, now: float) -> str:
    """The notice that a lease will end; empty for none."""
    notice = lease["notice"]
    if notice is None:
        return ""
    left = format_duration(notice["ends_at"] - now)
    if notice["kind"] == "idle":
        return f"  reclaimed in {left}: idle"
    return f"  preempted in {left}: capacity is needed"


def device_name(device: JSON) -> str:
    """A device, for people."""
    name = str(device["name"])
    if device["kind"] == "gpu":
        name = f"GPU {device['index']}: {name}"
    if device["simulated"] and "simulated" not in device["name"]:
        name = f"{name} (simulated)"
    return name
