"""Values as people read them, in a notebook and on the command line alike."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jupyter_aistack.core.model.condition import ConditionKind, Severity
from jupyter_aistack.core.model.drain import DrainKind
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.core.model.stray import Exemption
from jupyter_aistack.core.model.units import (
    format_bytes,
    format_duration,
    format_share,
)

KINDS = frozenset(ConditionKind)
UNKNOWN = "n/a"
"""For a value that is not known, so that it never looks like zero."""


def number_text(value: float | None, digits: int) -> str:
    """A number with so many digits after the point."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def bytes_text(value: int | None) -> str:
    """An amount of memory, e.g. ``20.0 GiB``."""
    return UNKNOWN if value is None else format_bytes(value)


def percent_text(share: float | None) -> str:
    """A share of something, e.g. ``40%``."""
    return UNKNOWN if share is None else f"{share:.0%}"


def condition_text(condition: Mapping[str, Any]) -> str:
    """A condition as on the wire, in words: ``near its memory: ...``."""
    label = ConditionKind(condition["kind"]).label
    message = str(condition["message"])
    return f"{label}: {message}" if label else message


def health_text(condition: Mapping[str, Any], now: float) -> str:
    """A condition of a device as on the wire, in words: ``error XidError for 3 min: …``."""
    holds_for = format_duration(now - condition["since"])
    what = f"{condition['severity']} {condition['code']} for {holds_for}"
    return f"{what}: {condition['message']}"


def warnings_text(device: Mapping[str, Any]) -> str:
    """What people should know of a device that works: that nothing new is granted on
    it, and of its health; in one line, empty for nothing.
    """
    warning = Severity.WARNING.value
    conditions = [each for each in device["conditions"] if each["severity"] == warning]
    texts = [drain_text(device), *(str(each["message"]) for each in conditions)]
    return "; ".join(filter(None, texts))


def drain_text(device: Mapping[str, Any]) -> str:
    """That nothing new is granted on a device as on the wire, by hand; empty where it
    may be granted.
    """
    drain = device.get("drain")
    if drain is None:
        return ""
    text = "in quarantine" if drain["kind"] == DrainKind.QUARANTINE else "drained"
    if drain["until"] is not None:
        local = time.localtime(drain["until"])
        text = f"{text} until {time.strftime('%a %Y-%m-%d %H:%M', local)}"
    if drain["created_by"]:
        text = f"{text} by {drain['created_by']}"
    return f"{text}: {drain['reason']}" if drain["reason"] else text


def own_stray_lines(host: Mapping[str, Any], now: float) -> list[str]:
    """What the asker's own processes on a host as on the wire do without a lease, one
    line each.
    """
    own = [stray for stray in host.get("strays", ()) if stray["is_own"]]
    return [_own_stray_line(stray, host, now) for stray in own]


def _own_stray_line(
    stray: Mapping[str, Any], host: Mapping[str, Any], now: float
) -> str:
    names = {each["id"]: f"GPU {each['index']}" for each in host["devices"]}
    where = names.get(stray["device_id"], stray["device_id"])
    line = f"your process {stray_text(stray, now)} uses {where} without a lease"
    if stray["ends_at"] is not None:
        line += f"; it will be ended in {format_duration(stray['ends_at'] - now)}"
    return f"{line}; ask for a slice, and start it with that"


def stray_text(stray: Mapping[str, Any], now: float) -> str:
    """A process without a lease as on the wire, without its user: ``4711 (python
    train.py), 3.2 GiB, for 2 h``.
    """
    command = f" ({stray['command']})" if stray["command"] else ""
    age = UNKNOWN
    if stray["since"] is not None:
        age = format_duration(now - stray["since"])
    memory = bytes_text(stray["memory_bytes"])
    return f"{stray['pid'] or UNKNOWN}{command}, {memory}, for {age}"


def stray_remark(stray: Mapping[str, Any], now: float) -> str:
    """What will become of it; empty for nothing."""
    if stray["ends_at"] is not None:
        return f"ended in {format_duration(stray['ends_at'] - now)}"
    words = {exemption.value: exemption.label for exemption in Exemption}
    return words.get(stray["exemption"], "")


def lease_remarks(lease: Mapping[str, Any], kinds: Iterable[str] = KINDS) -> str:
    """The conditions of a lease of these kinds in one line, the gravest first; empty
    for none.
    """
    wanted = [each for each in lease["conditions"] if each["kind"] in set(kinds)]
    return "; ".join(condition_text(condition) for condition in wanted)


def share_text(lease: Mapping[str, Any], slice_: Mapping[str, Any]) -> str:
    """The share of a slice as on the wire: ``1/4``, or ``1/4, up to 1/1, now 3/4``."""
    granted = format_share(slice_["fraction"])
    for limit in lease["limits"]:
        if limit["device_id"] == slice_["device_id"]:
            ceiling = whole_text(lease["up_to"])
            now = whole_text(limit["fraction"])
            return f"{granted}, up to {ceiling}, now {now}"
    return granted


def granted_text(lease: Mapping[str, Any]) -> str:
    """What a lease as on the wire was granted: ``1/4 of GPU-…, 20.0 GiB, up to 1/1``."""
    parts = [
        f"{format_share(slice_['fraction'])} of {slice_['device_id']}"
        for slice_ in lease["slices"]
    ]
    parts.append(format_bytes(sum(each["memory_bytes"] for each in lease["slices"])))
    if lease["up_to"] is not None:
        parts.append(f"up to {whole_text(lease['up_to'])}")
    return ", ".join(parts)


def whole_text(share: str) -> str:
    """A share for people: ``1/1`` for all of a device."""
    return "1/1" if share == "1" else format_share(share)


def usable_bytes(lease: Mapping[str, Any]) -> int:
    """Memory that a lease as on the wire may use now, over all its slices."""
    limits = {each["device_id"]: each["memory_bytes"] for each in lease["limits"]}
    return sum(
        limits.get(slice_["device_id"], slice_["memory_bytes"])
        for slice_ in lease["slices"]
    )


def usable_cores(lease: Mapping[str, Any], slice_: Mapping[str, Any]) -> list[int]:
    """Cores that a slice as on the wire may run on now."""
    for limit in lease["limits"]:
        if limit["device_id"] == slice_["device_id"]:
            return list(limit["cores"])
    return list(slice_["cores"])


def aligned(rows: Iterable[Sequence[object]], indent: str = "") -> list[str]:
    """Rows as lines, each column as wide as its widest cell."""
    table = [[printable(str(cell)) for cell in row] for row in rows]
    columns = zip(*table, strict=True)
    widths = [max(len(cell) for cell in column) for column in columns]
    return [indent + _line(row, widths) for row in table]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(cell.ljust(width) for cell, width in cells).rstrip()
