"""What the page of the hub shows of a host, read from its broker as one user sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from jupyter_aistack.client.text import bytes_text, percent_text, warnings_text
from jupyter_aistack.core.model.roles import Role
from jupyter_aistack.core.model.units import (
    format_bytes,
    format_duration,
    format_share,
)

JSON = dict[str, Any]
UNSEEN = "n/a"


class Ask(Protocol):
    """Calls a verb of the broker as the user who looks. Raises `AIStackError`."""

    def __call__(self, verb: str, **payload: Any) -> JSON: ...


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What the user who looks may change, as the broker says.

    Attributes:
        user: who it is.
        roles: the roles, the least first.
        queues: the queues that the user manages.
    """

    user: str
    roles: tuple[Role, ...] = (Role.USER,)
    queues: frozenset[str] = frozenset()

    @property
    def is_over_all(self) -> bool:
        """Whether what anybody holds may be released, and devices drained."""
        return Role.ADMIN in self.roles or Role.OPERATOR in self.roles

    def is_over(self, queue: str) -> bool:
        """Whether what is in a queue may be released."""
        return self.is_over_all or queue in self.queues


@dataclass(frozen=True, kw_only=True)
class DeviceRow:
    """A device.

    Attributes:
        id: its id.
        name: what people call it.
        memory, free, use: texts of its memory, of what is not leased of it, and of
            what is in use.
        remark: what is to be known of its health, and why it grants nothing.
        is_drained: no new leases are granted on it.
        may_drain: there is a button for that.
    """

    id: str
    name: str
    memory: str
    free: str
    use: str
    remark: str
    is_drained: bool
    may_drain: bool


@dataclass(frozen=True, kw_only=True)
class HeldRow:
    """A lease.

    Attributes:
        id: its id.
        user, notebook: who holds it, as far as that is shown.
        size, where: what it was granted, and on which devices.
        queue: the queue it is charged to.
        held_for: how long, as text.
        remark: what is under way with it.
        may_release: there is a button for that.
    """

    id: str
    user: str
    notebook: str
    size: str
    where: str
    queue: str
    held_for: str
    remark: str
    may_release: bool


@dataclass(frozen=True, kw_only=True)
class WaitingRow:
    """A request that waits.

    Attributes:
        id: its id.
        place: its place in the queue, as text.
        user, notebook: who waits, as far as that is shown.
        size: what is asked for.
        queue: where it waits.
        waits_for: how long, as text.
        why: why it waits.
        may_cancel: there is a button for that.
    """

    id: str
    place: str
    user: str
    notebook: str
    size: str
    queue: str
    waits_for: str
    why: str
    may_cancel: bool


@dataclass(frozen=True, kw_only=True)
class WeekRow:
    """What a user has used in this week.

    Attributes:
        user: who, as far as that is shown.
        gpu_hours, used_hours, cpu_hours: hours of whole devices, as text.
    """

    user: str
    gpu_hours: str
    used_hours: str
    cpu_hours: str


@dataclass(frozen=True, kw_only=True)
class HostView:
    """All that is shown.

    Attributes:
        host: what people call the machine.
        is_simulated: its devices are made up.
        problems: what stands in the way of granting.
        rights: what the user who looks may change.
        devices, held, waiting, week: the tables.
        week_name: such as ``2026-W48``.
    """

    host: str
    is_simulated: bool
    problems: tuple[str, ...]
    rights: Rights
    devices: tuple[DeviceRow, ...]
    held: tuple[HeldRow, ...]
    waiting: tuple[WaitingRow, ...]
    week: tuple[WeekRow, ...]
    week_name: str


def read_host(ask: Ask, user: str, now: float) -> HostView:
    """Ask the broker of a host for all that is shown.

    Args:
        ask: calls the broker as the user who looks.
        user: what the hub calls that user.
        now: the time.

    Raises:
        AIStackError: the broker does not answer, or refuses the user.
    """
    host = ask("host")
    rights = _rights(host, user)
    week_name = _week_of(now)
    names = {device["id"]: device_name(device) for device in host["devices"]}
    usage = ask("usage")["devices"]
    return HostView(
        host=host["host"],
        is_simulated=host["simulated"],
        problems=tuple(host["problems"]),
        rights=rights,
        devices=tuple(_device_rows(host["devices"], usage, rights)),
        held=tuple(_held_rows(ask("leases")["leases"], names, rights, now)),
        waiting=tuple(_waiting_rows(ask("queue")["queue"], rights, now)),
        week=tuple(_week_rows(ask("report", all=True, week=week_name)["lines"])),
        week_name=week_name,
    )


def _rights(host: JSON, user: str) -> Rights:
    """What a user may change; a broker of an older version does not say."""
    known = {role.value for role in Role}
    return Rights(
        user=user,
        roles=tuple(Role(name) for name in host.get("roles", ()) if name in known),
        queues=frozenset(host.get("manages", ())),
    )


def _week_of(now: float) -> str:
    year, week, _ = datetime.fromtimestamp(now, UTC).isocalendar()
    return f"{year}-W{week:02}"


def device_name(device: JSON) -> str:
    """What people call a device as on the wire."""
    name = str(device["name"])
    return f"GPU {device['index']}: {name}" if device["kind"] == "gpu" else name


def _device_rows(
    devices: Iterable[JSON], usage: Mapping[str, JSON], rights: Rights
) -> Iterator[DeviceRow]:
    for device in devices:
        remarks = (device["problem"], warnings_text(device))
        yield DeviceRow(
            id=device["id"],
            name=device_name(device),
            memory=format_bytes(device["memory_bytes"]),
            free=format_share(device["free_fraction"]),
            use=_use_text(usage.get(device["id"])),
            remark="; ".join(filter(None, remarks)),
            is_drained=device.get("drain") is not None,
            may_drain=rights.is_over_all,
        )


def _use_text(use: JSON | None) -> str:
    if use is None:
        return UNSEEN
    busy = percent_text(use["utilization"])
    return f"{bytes_text(use['memory_bytes'])}, {busy} busy"


def _held_rows(
    leases: Iterable[JSON], names: Mapping[str, str], rights: Rights, now: float
) -> Iterator[HeldRow]:
    for lease in leases:
        where = [names.get(each["device_id"], UNSEEN) for each in lease["slices"]]
        yield HeldRow(
            id=lease["id"],
            user=lease["holder"]["user"],
            notebook=_notebook(lease["holder"]),
            size=_size(lease["slices"]),
            where=", ".join(dict.fromkeys(where)),
            queue=lease["queue"],
            held_for=format_duration(max(now - lease["granted_at"], 0.0)),
            remark=_lease_remark(lease, now),
            may_release=rights.is_over(lease["queue"]),
        )


def _notebook(holder: JSON) -> str:
    """What people call a holder; empty where that is not shown."""
    return str(holder["label"])


def _size(slices: Sequence[JSON]) -> str:
    shares = [each["profile"] or format_share(each["fraction"]) for each in slices]
    memory = format_bytes(sum(each["memory_bytes"] for each in slices))
    return f"{' + '.join(shares)}, {memory}"


def _lease_remark(lease: JSON, now: float) -> str:
    notice = lease["notice"]
    if notice is None:
        return ""
    left = format_duration(max(notice["ends_at"] - now, 0.0))
    why = "idle" if notice["kind"] == "idle" else "capacity is needed"
    return f"ends in {left}: {why}"


def _waiting_rows(
    requests: Iterable[JSON], rights: Rights, now: float
) -> Iterator[WaitingRow]:
    for request in requests:
        place = request["position"]
        yield WaitingRow(
            id=request["id"],
            place=UNSEEN if place is None else str(place),
            user=request["holder"]["user"],
            notebook=_notebook(request["holder"]),
            size=request["spec"],
            queue=request["queue"],
            waits_for=format_duration(max(now - request["submitted_at"], 0.0)),
            why=request["reason"],
            may_cancel=rights.is_over(request["queue"]),
        )


def _week_rows(lines: Iterable[JSON]) -> Iterator[WeekRow]:
    def hours(line: JSON, name: str) -> str:
        value = line[name]
        return UNSEEN if value is None else f"{value:.1f}"

    for line in sorted(lines, key=lambda line: -line["gpu_hours"]):
        yield WeekRow(
            user=line["user"],
            gpu_hours=hours(line, "gpu_hours"),
            used_hours=hours(line, "gpu_hours_used"),
            cpu_hours=hours(line, "cpu_hours"),
        )
