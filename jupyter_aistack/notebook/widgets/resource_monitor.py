"""``ResourceMonitor``: what this kernel's slices and the host's devices do, live."""

from __future__ import annotations

import contextlib
import numbers
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from jupyter_aistack.client.display import Panel, bar
from jupyter_aistack.client.text import bytes_text, percent_text
from jupyter_aistack.core.model.device_state import DisplayState
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.exceptions import AIStackError, InvalidRequest

from .base import LiveWidget, module

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client

LEAST_INTERVAL = 0.5
JSON = Mapping[str, Any]
Row = dict[str, Any]
"""A row of the monitor, as the page gets it."""


class ResourceMonitor(LiveWidget):
    """Memory, load and holders of this kernel's slices and of the host's devices,
    sampled by a thread.

    Stop it with :meth:`close`; that works while a cell runs only from another thread,
    so it also ends with the kernel.

    Args:
        interval: seconds between two samples, at least 0.5.
        client: gives the samples; the kernel's own by default.
    """

    _esm = module("resource_monitor.js")
    rows: traitlets.List[Any] = traitlets.List().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)

    def __init__(self, interval: float = 2.0, *, client: Client | None = None) -> None:
        self._stopped = threading.Event()
        self._sampled_at = "no time yet"  # close() runs after a failed start too
        if not _is_interval(interval):
            message = f"interval: expected at least {LEAST_INTERVAL} seconds, got {interval!r}"
            raise InvalidRequest(message, field="interval")
        from jupyter_aistack.client.client import connect

        self._client = client or connect()
        self.interval = float(interval)
        super().__init__()
        self.sample()
        self._thread = threading.Thread(
            target=self._work, name="aistack-monitor", daemon=True
        )
        self._thread.start()

    def sample(self) -> None:
        """Take a sample now; when the broker does not answer, the note says so."""
        try:
            host = self._client.host()
            mine = self._client.mine()
            usage = self._client.usage()
            rows = monitor_rows(host, self._client.leases(), mine["leases"], usage)
            note = _note(host)
        except AIStackError as error:
            rows = self.rows
            note = f"not live: {error.message}"
        if self._stopped.is_set():
            return
        self._sampled_at = time.strftime("%H:%M:%S")
        with self.hold_sync():
            self.rows = rows
            self.note = note
        self._follow()

    def _work(self) -> None:
        while not self._stopped.wait(self.interval):
            # A kernel that is ending takes no more updates.
            with contextlib.suppress(RuntimeError):
                self.sample()

    @property
    def is_running(self) -> bool:
        """Whether it still samples."""
        return self._thread.is_alive() and not self._stopped.is_set()

    def picture(self) -> str:
        """The last sample as a table."""
        panel = Panel(
            title=f"Resources at {self._sampled_at}",
            headings=("", "memory", "busy", "who"),
            rows=[_picture_row(row) for row in self.rows],
            remark=self.note,
        )
        return panel.to_html()

    def summary(self) -> str:
        """The last sample in a line."""
        texts = (
            f"{row['name']} {row['memory']} {row['standing']}".rstrip()
            for row in self.rows
        )
        return "; ".join(texts) or self.note or "nothing to show"

    def close(self) -> None:
        """Stop sampling; the last state stays as a picture."""
        self._stopped.set()
        super().close()


def _note(host: JSON) -> str:
    notes = list(host["problems"])
    if host["simulated"]:
        notes.append("simulated: nothing real stands behind it")
    return "; ".join(notes)


def _picture_row(row: Row) -> tuple[Any, ...]:
    memory = bar(row["share"], 1, row["memory"])
    who = "; ".join(filter(None, (row["who"], row["standing"])))
    return row["name"], memory, row["busy"], who


def _is_interval(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return float(value) >= LEAST_INTERVAL  # not-a-number is not


def monitor_rows(
    host: JSON, leases: Sequence[JSON], mine: Sequence[JSON], usage: JSON
) -> list[Row]:
    """What the monitor shows: this kernel's slices first, then the devices.

    Each row has ``name``, ``memory`` and ``busy`` in words, ``share`` of the memory in
    use (None when it cannot be known), ``who`` holds it, its ``standing`` (empty where
    its memory never leaves the device), and ``is_mine``.
    """
    names = {device["id"]: _device_name(device) for device in host["devices"]}
    slice_rows = [
        _slice_row(lease, names, usage["leases"].get(lease["id"], {})) for lease in mine
    ]
    device_rows = [
        _device_row(device, leases, usage["devices"].get(device["id"], {}))
        for device in host["devices"]
    ]
    return slice_rows + device_rows


def _device_name(device: JSON) -> str:
    return f"{device['kind'].upper()} {device['index']}"


def _slice_row(lease: JSON, names: Mapping[str, str], use: JSON) -> Row:
    slices = lease["slices"]
    # Each device once, though several slices may be on it.
    devices = dict.fromkeys(names.get(slice_["device_id"], "?") for slice_ in slices)
    memory_bytes = sum(slice_["memory_bytes"] for slice_ in slices)
    is_worker = bool(lease["holder"]["parent"])
    return {
        "name": f"{lease['spec']} of {', '.join(devices)}",
        "who": _holder(lease) if is_worker else "this kernel",
        "standing": standing_words(lease),
        "is_mine": True,
        **_amounts(use, memory_bytes),
    }


def _device_row(device: JSON, leases: Sequence[JSON], use: JSON) -> Row:
    holders = [
        f"{_holder(lease)} ({_share(lease)})"
        for lease in leases
        if _is_on(lease, device["id"])
    ]
    return {
        "name": f"{_device_name(device)}: {device['name']}",
        "who": device["problem"] or ", ".join(holders) or "free",
        "standing": "",
        "is_mine": False,
        **_amounts(use, device["memory_bytes"]),
    }


def _is_on(lease: JSON, device_id: str) -> bool:
    return any(slice_["device_id"] == device_id for slice_ in lease["slices"])


def _holder(lease: JSON) -> str:
    holder = lease["holder"]
    return str(holder["label"] or holder["id"])


def _share(lease: JSON) -> str:
    """How much it holds, and whether that is in host memory for now or gone."""
    device_state = lease.get("residence") or {}
    standing = device_state.get("standing")
    if standing in (DisplayState.SUSPENDED, DisplayState.LOST):
        return f"{lease['spec']}, {standing}"
    return str(lease["spec"])


def standing_words(lease: JSON) -> str:
    """Where the device memory of a lease is; empty where it never leaves its device."""
    device_state = lease.get("residence")
    if not device_state:
        return ""
    standing = str(device_state["standing"])
    state_bytes = device_state["state_bytes"]
    if standing == DisplayState.SUSPENDED and state_bytes is not None:
        size = format_bytes(state_bytes * len(lease["slices"]))
        return f"{standing}, {size} in host memory"
    if standing == DisplayState.LOST:
        return f"{standing}: restart the kernel"
    if standing == DisplayState.PINNED and device_state["why"]:
        return f"{standing}: {device_state['why']}"
    return standing


def _amounts(use: JSON, limit_bytes: int) -> Row:
    used_bytes = use.get("memory_bytes")
    share = None
    if used_bytes is not None and limit_bytes:
        share = used_bytes / limit_bytes
    return {
        "share": share,
        "memory": f"{bytes_text(used_bytes)} of {format_bytes(limit_bytes)}",
        "busy": percent_text(use.get("utilization")),
    }
