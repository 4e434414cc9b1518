"""What the magics show, made of the granting side's JSON; nothing here makes a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jupyter_aistack.client.display import Bar, Panel, bar
from jupyter_aistack.client.notices import notice_line
from jupyter_aistack.client.text import (
    bytes_text,
    health_text,
    lease_remarks,
    percent_text,
    share_text,
    usable_bytes,
    usable_cores,
    warnings_text,
)
from jupyter_aistack.core.model.condition import Severity
from jupyter_aistack.core.model.request import HolderKind
from jupyter_aistack.core.model.units import (
    format_about,
    format_bytes,
    format_duration,
    format_share,
)

if TYPE_CHECKING:
    from jupyter_aistack.tracking.cost import Cost

JSON = Mapping[str, Any]
SHOWN_CORES = 8


def status_panel(
    lease: JSON, others: Sequence[JSON], host: JSON, usage: JSON, now: float
) -> Panel:
    """The lease this kernel holds.

    Args:
        lease: this kernel's own lease.
        others: leases of its workers, and of processes that it started.
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
        *_health_rows(lease, host, now),
        ("time left", time_left(lease, now)),
        *idle_rows(lease, host, now),
    ]
    rows.extend(_rows_of_others(others))
    title = f"This kernel holds {lease['spec']}"
    if _is_simulated(lease, host):
        title += " (simulated: nothing real stands behind it)"
    return Panel(title=title, rows=rows, remark=_problems(host))


def _health_rows(lease: JSON, host: JSON, now: float) -> Iterator[tuple[str, str]]:
    """What its user should know of the health of its devices."""
    ids = {slice_["device_id"] for slice_ in lease["slices"]}
    told = [
        f"{device['name']}: {health_text(condition, now)}"
        for device in host["devices"]
        if device["id"] in ids
        for condition in device["conditions"]
        if condition["severity"] != Severity.INFO.value
    ]
    if told:
        yield "health", "; ".join(told)


def _rows_of_others(others: Sequence[JSON]) -> Iterator[tuple[str, str]]:
    """How many leases the workers have, and the processes that the kernel started."""
    names = {True: "its processes", False: "workers"}
    for is_process, name in names.items():
        specs = [lease["spec"] for lease in others if _is_process(lease) is is_process]
        if specs:
            yield name, f"{len(specs)} more leases: {', '.join(specs)}"


def _is_process(lease: JSON) -> bool:
    return bool(lease["holder"]["kind"] == HolderKind.PROCESS.value)


def device_state_rows(lease: JSON) -> Iterator[tuple[str, str]]:
    """Where its GPU memory is, where it may be elsewhere."""
    device_state = lease["residence"]
    if device_state is not None:
        why = f" ({device_state['why']})" if device_state["why"] else ""
        yield "GPU memory", _STANDINGS[device_state["standing"]] + why


def device_state_panel(lease: JSON, verb: str) -> Panel:
    """What has come of ``%gpu suspend``, ``resume``, ``pin`` or ``unpin``."""
    # After suspend the answer is out of date at once: the move begins with its end.
    rows = () if verb == "suspend" else tuple(device_state_rows(lease))
    title = f"{lease['spec']} ({lease['id']})"
    return Panel(title=title, rows=rows, remark=_REMARKS[verb])


_STANDINGS = {
    "held": "HELD, a cell uses it",
    "warm": "WARM, it moves to host memory when others need the capacity",
    "suspended": "SUSPENDED, it is in host memory and comes back with the next cell that needs it",
    "pinned": "PINNED, it stays on the GPU",
    "lost": "LOST, restart the kernel",
}
_REMARKS = {
    "suspend": "It moves to host memory now that this cell is over. Nothing is lost: the next cell that needs it waits "
    "until it is back.",
    "resume": "It comes back as soon as there is capacity.",
    "pin": "It stays on the GPU until %gpu unpin.",
    "unpin": "It may move to host memory while this kernel is idle and others need the capacity.",
}


def waiting_panel(request: JSON, now: float) -> Panel:
    """The request of this kernel that waits."""
    rows = [
        ("queue", f"{request['queue']}, {_place(request)}"),
        ("reason", _reason(request)),
        ("expected", expected(request, now)),
    ]
    remark = "It is attached before the first cell that runs after the grant; %gpu release leaves the queue."
    return Panel(
        title=f"This kernel waits for {request['spec']}", rows=rows, remark=remark
    )


def nothing_panel(host: JSON) -> Panel:
    """This kernel holds nothing: what could be had?"""
    rows = [(device["name"], _free(device)) for device in host["devices"]]
    simulated = " (simulated)" if host["simulated"] else ""
    return Panel(
        title="This kernel holds no slice",
        headings=(f"device{simulated}", "free"),
        rows=rows,
        remark=_problems(host) or "%gpu request 1/4 asks for a quarter of a device.",
    )


def queue_panel(waiting: Sequence[JSON], mine: Iterable[str], now: float) -> Panel:
    """Who waits; `mine` are the ids of this kernel's requests."""
    if not waiting:
        return Panel(title="No request waits")
    own = set(mine)
    return Panel(
        title=f"{len(waiting)} waiting",
        headings=("", "wants", "who", "queue", "why", "expected"),
        rows=[_queue_row(request, own, now) for request in waiting],
    )


def _queue_row(request: JSON, own: set[str], now: float) -> tuple[str, ...]:
    is_own = request["id"] in own
    return (
        str(request["position"] or ""),
        request["spec"],
        "this kernel" if is_own else _who(request["holder"]),
        request["queue"],
        request["reason"],
        expected(request, now),
    )


def usage_panel(
    leases: Sequence[JSON], usage: JSON, cost: Cost, parts: Sequence[Panel] = ()
) -> Panel:
    """What the kernel's leases use now, and what they have cost; `parts` say more of
    the latter.
    """
    remark = f"So far {cost.gpu_slice_hours:.4f} GPU and {cost.cpu_slice_hours:.4f} CPU slice-hours."
    if not leases:
        return Panel(title="This kernel holds no slice", remark=remark, parts=parts)
    return Panel(
        title="In use now",
        headings=("who", "slice", "memory", "busy"),
        rows=[_usage_row(lease, usage) for lease in leases],
        remark=remark,
        parts=parts,
    )


def _usage_row(lease: JSON, usage: JSON) -> tuple[Any, ...]:
    use = usage["leases"].get(lease["id"], {})
    return (
        _holder(lease),
        lease["spec"],
        memory_used(lease, usage),
        percent_text(use.get("utilization")),
    )


def memory_used(lease: JSON, usage: JSON) -> Bar | str:
    """Memory in use of what the lease grants; "n/a" where it cannot be known."""
    used = usage["leases"].get(lease["id"], {}).get("memory_bytes")
    limit = usable_bytes(lease)
    return bar(used, limit, f"{bytes_text(used)} of {format_bytes(limit)}")


def time_left(lease: JSON, now: float) -> str:
    """How long the lease still lasts."""
    if lease["ends_at"] is None:
        return "until it is released"
    left = format_duration(lease["ends_at"] - now)
    return f"{left}, or less: preemptible" if lease["preemptible"] else left


def expected(request: JSON, now: float) -> str:
    """When a request is likely to be granted."""
    at = request.get("eta_at")
    if at is None:
        return "unknown"
    return f"in about {format_about(at - now)}" if at > now else "any moment"


def idle_rows(lease: JSON, host: JSON, now: float) -> Iterator[tuple[str, str]]:
    """How long the lease has been idle, and the notice that it will end."""
    since = lease["active_at"]
    if since is not None and _is_shown_idle(now - since):
        yield "idle", f"for {format_duration(now - since)}{_reclaim(lease, host)}"
    if lease["notice"] is not None:
        yield "notice", notice_line(lease, now)


def _is_shown_idle(seconds: float) -> bool:
    # Here: the rule loads the models of leases and queues, which the first `%gpu` of a
    # kernel would wait for, and a lease that is new has not been used yet.
    from jupyter_aistack.core.scheduling.idle import SHOWN_SECONDS

    return seconds >= SHOWN_SECONDS


def _reclaim(lease: JSON, host: JSON) -> str:
    """After what time an idle lease of its queue is reclaimed; empty for never."""
    for queue in host["queues"]:
        if queue["name"] == lease["queue"] and queue["idle"]:
            after = format_duration(queue["idle"]["reclaim_seconds"])
            return f"; reclaimed after {after}"
    return ""


def arrived_line(lease: JSON) -> str:
    """One line for a lease that was attached just before a cell."""
    line = f"This kernel now holds {lease['spec']} ({lease['id']}), enforced by {lease['enforcement']}"
    if lease["verified"] is False:
        line += f"; {lease_remarks(lease)}"
    return line


def waiting_line(request: JSON) -> str:
    """One line for a request that waits."""
    return f"Waiting for {request['spec']} ({_place(request)}): {_reason(request)}"


def _reason(request: JSON) -> str:
    return str(request["reason"] or "not planned yet")


def _place(request: JSON) -> str:
    position = request.get("position")
    return f"position {position}" if position else "position unknown"


def _devices(lease: JSON, host: JSON) -> str:
    names = {device["id"]: device["name"] for device in host["devices"]}
    return "; ".join(_slice_text(lease, slice_, names) for slice_ in lease["slices"])


def _slice_text(lease: JSON, slice_: JSON, names: Mapping[str, str]) -> str:
    device_id = slice_["device_id"]
    name = names.get(device_id, device_id)
    granted, _, ceiling = share_text(lease, slice_).partition(", ")
    text = f"{slice_['profile'] or granted} of {name}"
    if ceiling:
        text += f", {ceiling}"
    cores = usable_cores(lease, slice_)
    if cores:
        text += f", cores {_cores(cores)}"
    return text


def _cores(cores: Sequence[int]) -> str:
    if len(cores) > SHOWN_CORES:
        return f"{len(cores)} of them"
    return ", ".join(map(str, cores))


def _enforcement(lease: JSON) -> str:
    level = lease["enforced_by"]
    if not level:
        return "nothing yet"
    if level[0] == "L":
        return f"{level}: {lease['enforcement']}"
    return str(lease["enforcement"])


_VERIFIED = {True: "yes, from inside", False: "NO", None: "not checked"}


def _verified(lease: JSON) -> str:
    answer = _VERIFIED[lease["verified"]]
    remarks = lease_remarks(lease)
    if not remarks:
        return answer
    # A remark says itself why something was not checked.
    return remarks if lease["verified"] is None else f"{answer}: {remarks}"


def _is_simulated(lease: JSON, host: JSON) -> bool:
    if lease["enforced_by"] == "simulated":
        return True
    simulated = {device["id"] for device in host["devices"] if device["simulated"]}
    return any(slice_["device_id"] in simulated for slice_ in lease["slices"])


def _free(device: JSON) -> str:
    if device["problem"]:
        return str(device["problem"])
    if device["mig"]:
        profiles = {instance["profile"] for instance in device["mig"]}
        return "MIG: " + ", ".join(sorted(profiles))
    share = format_share(device["free_fraction"])
    free = f"{share} of {format_bytes(device['memory_bytes'])}"
    return ", ".join(filter(None, [free, warnings_text(device)]))


def _who(holder: JSON) -> str:
    # Another user's holder, whose name is not shown.
    if not holder["label"] and holder["pid"] is None:
        return str(holder["user"])
    return f"{holder['user']}: {holder['label'] or holder['id']}"


def _holder(lease: JSON) -> str:
    holder = lease["holder"]
    if _is_process(lease) and holder["parent"]:
        return f"process {holder['pid']}"
    return f"worker {holder['id']}" if holder["parent"] else "this kernel"


def _problems(host: JSON) -> str:
    return "; ".join(host["problems"])
