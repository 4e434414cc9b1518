"""What the magics show, made of the granting side's JSON. Nothing here asks anybody
anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jupyter_aistack.client.display import Bar, Panel, bar
from jupyter_aistack.client.notices import notice_line
from jupyter_aistack.client.text import lease_remarks
from jupyter_aistack.core.model.units import (
    format_about,
    format_bytes,
    format_duration,
    format_share,
)

if TYPE_CHECKING:
    from jupyter_aistack.tracking.cost import Cost

JSON = Mapping[str, Any]
SHOWN_IDLE_SECONDS = 120.0
"""From when on a lease is called idle; use is noted once a minute."""


def status_panel(
    lease: JSON, workers: Sequence[JSON], host: JSON, usage: JSON, now: float
) -> Panel:
    """The lease this kernel holds.

    Args:
        lease: this kernel's own lease.
        workers: leases of its workers.
        host, usage: as on the wire.
        now: seconds since the epoch.
    """
    rows: list[tuple[str, Any]] = [
        ("lease", f"{lease['id']}, {lease['state']}"),
        ("device", _devices(lease, host)),
        ("enforced by", _enforcement(lease)),
        ("verified", _verified(lease)),
        ("memory", memory_used(lease, usage)),
        *device_state_rows(lease),
        ("time left", time_left(lease, now)),
        *idle_rows(lease, host, now),
    ]
    if workers:
        rows.append(
            (
                "workers",
                f"{len(workers)} more leases: {', '.join(worker['spec'] for worker in workers)}",
            )
        )
    simulated = (
        " (simulated: nothing real stands behind it)"
        if _is_simulated(lease, host)
        else ""
    )
    return Panel(
        title=f"This kernel holds {lease['spec']}{simulated}",
        rows=rows,
        remark=_problems(host),
    )


def device_state_rows(lease: JSON) -> Iterator[tuple[str, str]]:
    """Where its GPU memory is, where it may be elsewhere."""
    home = lease["residence"]
    if home is not None:
        why = f" ({home['why']})" if home["why"] else ""
        yield "GPU memory", _STANDINGS[home["standing"]] + why


def device_state_panel(lease: JSON, verb: str) -> Panel:
    """What has come of ``%gpu suspend``, ``resume``, ``pin`` or ``unpin``."""
    rows = (
        () if verb == "suspend" else tuple(device_state_rows(lease))
    )  # it is about to be another
    return Panel(
        title=f"{lease['spec']} ({lease['id']})", rows=rows, remark=_REMARKS[verb]
    )


_STANDINGS = {
    "held": "HELD, a cell uses it",
    "warm": "WARM, it moves to host memory when others need the room",
    "suspended": "SUSPENDED, it is in host memory and comes back with the next cell that needs it",
    "pinned": "PINNED, it stays on the GPU",
    "lost": "LOST, restart the kernel",
}
_REMARKS = {
    "suspend": "It moves to host memory now that this cell is over. Nothing is lost: the next cell that needs it waits "
    "until it is back.",
    "resume": "It comes back as soon as there is room.",
    "pin": "It stays on the GPU until %gpu unpin.",
    "unpin": "It may move to host memory while this kernel is idle and others need the room.",
}


def waiting_panel(request: JSON, now: float) -> Panel:
    """The request of this kernel that waits."""
    rows = [
        ("queue", f"{request['queue']}, {_place(request)}"),
        ("reason", request["reason"] or "it is being looked at"),
        ("expected", expected(request, now)),
    ]
    remark = "It is attached before the first cell that runs after the grant; %gpu release leaves the queue."
    return Panel(
        title=f"This kernel waits for {request['spec']}", rows=rows, remark=remark
    )


def nothing_panel(host: JSON) -> Panel:
    """This kernel holds nothing: what could be had?"""
    rows = [(device["name"], _free(device)) for device in host["devices"]]
    remark = _problems(host) or "%gpu request 1/4 asks for a quarter of a device."
    simulated = " (simulated)" if host["simulated"] else ""
    return Panel(
        title="This kernel holds no slice",
        headings=(f"device{simulated}", "free"),
        rows=rows,
        remark=remark,
    )


def queue_panel(waiting: Sequence[JSON], mine: Iterable[str], now: float) -> Panel:
    """Who waits; `mine` are the ids of this kernel's requests."""
    own = set(mine)
    rows = [
        (
            str(request["position"] or ""),
            request["spec"],
            "this kernel" if request["id"] in own else _who(request["holder"]),
            request["queue"],
            request["reason"],
            expected(request, now),
        )
        for request in waiting
    ]
    if not rows:
        return Panel(title="Nobody waits")
    return Panel(
        title=f"{len(rows)} waiting",
        headings=("", "wants", "who", "queue", "why", "expected"),
        rows=rows,
    )


def usage_panel(
    leases: Sequence[JSON], usage: JSON, cost: Cost, parts: Sequence[Panel] = ()
) -> Panel:
    """What the kernel's leases use now, and what they have cost; `parts` tell more of
    the latter.
    """
    rows: list[tuple[Any, ...]] = []
    for lease in leases:
        use = usage["leases"].get(lease["id"], {})
        rows.append(
            (
                _holder(lease),
                lease["spec"],
                memory_used(lease, usage),
                _busy(use.get("utilization")),
            )
        )
    remark = f"So far {cost.gpu_slice_hours:.4f} GPU and {cost.cpu_slice_hours:.4f} CPU slice-hours."
    if not rows:
        return Panel(title="This kernel holds no slice", remark=remark, parts=parts)
    headings = ("who", "slice", "memory", "busy")
    return Panel(
        title="In use now", headings=headings, rows=rows, remark=remark, parts=parts
    )


def memory_used(lease: JSON, usage: JSON) -> Bar | str:
    """Memory in use of what the lease grants; "n/a" where it cannot be known."""
    used = usage["leases"].get(lease["id"], {}).get("memory_bytes")
    limit = sum(piece["memory_bytes"] for piece in lease["slices"])
    return bar(
        used,
        limit,
        f"{'n/a' if used is None else format_bytes(used)} of {format_bytes(limit)}",
    )


def time_left(lease: JSON, now: float) -> str:
    """How long the lease still lasts."""
    if lease["ends_at"] is None:
        return "until it is released"
    return format_duration(lease["ends_at"] - now) + (
        ", or less: preemptible" if lease["preemptible"] else ""
    )


def expected(request: JSON, now: float) -> str:
    """When a request is likely to be granted."""
    at = request.get("eta_at")
    if at is None:
        return "nobody can say"
    return f"in about {format_about(at - now)}" if at > now else "any moment"


def idle_rows(lease: JSON, host: JSON, now: float) -> Iterator[tuple[str, str]]:
    """How long nobody has used the lease, and the word that it will be taken back."""
    notice = lease["notice"]
    since = lease["active_at"]
    if since is not None and now - since >= SHOWN_IDLE_SECONDS:
        queue = next(
            (queue for queue in host["queues"] if queue["name"] == lease["queue"]), None
        )
        end = (
            f"; taken back after {format_duration(queue['idle']['reclaim_seconds'])}"
            if queue and queue["idle"]
            else ""
        )
        yield "idle", f"for {format_duration(now - since)}{end}"
    if notice is not None:
        yield "notice", notice_line(lease, now)


def arrived_line(lease: JSON) -> str:
    """One line for a lease that was attached just before a cell."""
    doubt = f"; {lease_remarks(lease)}" if lease["verified"] is False else ""
    return f"This kernel now holds {lease['spec']} ({lease['id']}), enforced by {lease['enforcement']}{doubt}"


def waiting_line(request: JSON) -> str:
    """One line for a request that waits."""
    return f"Waiting for {request['spec']} ({_place(request)}): {request['reason'] or 'it is being looked at'}"


def _place(request: JSON) -> str:
    return (
        f"position {request['position']}"
        if request.get("position")
        else "position unknown"
    )


def _devices(lease: JSON, host: JSON) -> str:
    names = {device["id"]: device["name"] for device in host["devices"]}
    return "; ".join(
        f"{piece['profile'] or format_share(piece['fraction'])} of {names.get(piece['device_id'], piece['device_id'])}"
        + (f", cores {_cores(piece['cores'])}" if piece["cores"] else "")
        for piece in lease["slices"]
    )


def _cores(cores: Sequence[int]) -> str:
    return (
        ", ".join(str(core) for core in cores)
        if len(cores) <= 8
        else f"{len(cores)} of them"
    )


def _enforcement(lease: JSON) -> str:
    if not lease["enforced_by"]:
        return "nothing yet"
    level = lease["enforced_by"]
    return (
        f"{level}: {lease['enforcement']}"
        if level[0] == "L"
        else str(lease["enforcement"])
    )


def _verified(lease: JSON) -> str:
    answer = {True: "yes, from inside", False: "NO", None: "not checked"}[
        lease["verified"]
    ]
    conditions = lease_remarks(lease)
    return f"{answer}: {conditions}" if conditions else answer


def _is_simulated(lease: JSON, host: JSON) -> bool:
    simulated = {device["id"] for device in host["devices"] if device["simulated"]}
    return lease["enforced_by"] == "simulated" or any(
        piece["device_id"] in simulated for piece in lease["slices"]
    )


def _free(device: JSON) -> str:
    if device["problem"]:
        return str(device["problem"])
    if device["mig"]:
        return "MIG: " + ", ".join(
            sorted({instance["profile"] for instance in device["mig"]})
        )
    return f"{format_share(device['free_fraction'])} of {format_bytes(device['memory_bytes'])}"


def _who(holder: JSON) -> str:
    if (
        not holder["label"] and holder["pid"] is None
    ):  # a stranger's, whose name is not shown
        return str(holder["user"])
    return f"{holder['user']}: {holder['label'] or holder['id']}"


def _holder(lease: JSON) -> str:
    return (
        f"worker {lease['holder']['id']}"
        if lease["holder"]["parent"]
        else "this kernel"
    )


def _busy(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.0%}"


def _problems(host: JSON) -> str:
    return "; ".join(host["problems"])
