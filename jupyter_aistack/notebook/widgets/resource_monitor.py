"""``ResourceMonitor``: what this kernel's slices and the host's devices do, live."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from jupyter_aistack.client.display import Panel, bar
from jupyter_aistack.core.model.device_state import DisplayState
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.exceptions import AIStackError, InvalidRequest

from .base import LiveWidget, module

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client

LEAST_INTERVAL = 0.5
JSON = Mapping[str, Any]


class ResourceMonitor(LiveWidget):
    """Memory, load and holders of this kernel's slices and of the host's devices,
    sampled by a thread.

    Stop it with :meth:`close`; that works while a cell runs only from another thread,
    so it also ends with the kernel.

    Args:
        interval: seconds between two samples, at least 0.5.
        client: whom to ask; the kernel's own by default.
    """

    _esm = module("resource_monitor.js")
    rows: traitlets.List[Any] = traitlets.List().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)

    def __init__(self, interval: float = 2.0, *, client: Client | None = None) -> None:
        self._stopped = threading.Event()
        self._seen_at = "no time yet"  # close() runs after a failed start too
        if (
            isinstance(interval, bool)
            or not isinstance(interval, (int, float))
            or not interval >= LEAST_INTERVAL
        ):
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
        """Take one sample now; a broker that does not answer is said in the note."""
        try:
            host = self._client.host()
            mine = self._client.mine()
            usage = self._client.usage()
            rows = monitor_rows(host, self._client.leases(), mine["leases"], usage)
            note = "; ".join(
                [
                    *host["problems"],
                    *(["simulated: nothing real stands behind it"] * host["simulated"]),
                ]
            )
        except AIStackError as error:
            rows = self.rows
            note = f"not live: {error.message}"
        if self._stopped.is_set():
            return
        self._seen_at = time.strftime("%H:%M:%S")
        with self.hold_sync():
            self.rows = rows
            self.note = note
        self._follow()

    def _work(self) -> None:
        while not self._stopped.wait(self.interval):
            with contextlib.suppress(
                RuntimeError
            ):  # the kernel is ending and takes no more updates
                self.sample()

    @property
    def is_running(self) -> bool:
        """Whether it still samples."""
        return self._thread.is_alive() and not self._stopped.is_set()

    def picture(self) -> str:
        """The last sample as a table."""
        rows = [
            (
                r["name"],
                bar(r["share"], 1, r["memory"]),
                r["busy"],
                "; ".join(filter(None, (r["who"], r["standing"]))),
            )
            for r in self.rows
        ]
        title = f"Resources at {self._seen_at}"
        return Panel(
            title=title,
            headings=("", "memory", "busy", "who"),
            rows=rows,
            remark=self.note,
        ).to_html()

    def summary(self) -> str:
        """The last sample in a line."""
        said = (
            f"{row['name']} {row['memory']} {row['standing']}".rstrip()
            for row in self.rows
        )
        return "; ".join(said) or self.note or "nothing to show"

    def close(self) -> None:
        """Stop sampling; the last state stays as a picture."""
        self._stopped.set()
        super().close()


def monitor_rows(
    host: JSON, leases: Sequence[JSON], mine: Sequence[JSON], usage: JSON
) -> list[dict[str, Any]]:
    """What the monitor shows: this kernel's slices first, then the devices.

    Each row has ``name``, ``memory`` and ``busy`` in words, ``share`` of the memory in
    use (None when it cannot be known), ``who`` holds it, its ``standing`` (empty where
    its memory never leaves the device), and ``is_mine``.
    """
    names = {
        device["id"]: f"{device['kind'].upper()} {device['index']}"
        for device in host["devices"]
    }
    rows = [
        _slice_row(lease, names, usage["leases"].get(lease["id"], {})) for lease in mine
    ]
    return rows + [
        _device_row(device, leases, usage["devices"].get(device["id"], {}))
        for device in host["devices"]
    ]


def _slice_row(lease: JSON, names: Mapping[str, str], use: JSON) -> dict[str, Any]:
    devices = ", ".join(
        dict.fromkeys(names.get(piece["device_id"], "?") for piece in lease["slices"])
    )
    who = (
        lease["holder"]["label"] or lease["holder"]["id"]
        if lease["holder"]["parent"]
        else "this kernel"
    )
    limit = sum(piece["memory_bytes"] for piece in lease["slices"])
    row = {
        "name": f"{lease['spec']} of {devices}",
        "who": who,
        "standing": standing_words(lease),
        "is_mine": True,
    }
    return {**row, **_amounts(use, limit)}


def _device_row(device: JSON, leases: Sequence[JSON], use: JSON) -> dict[str, Any]:
    held = [
        lease
        for lease in leases
        if any(piece["device_id"] == device["id"] for piece in lease["slices"])
    ]
    who = ", ".join(
        f"{lease['holder']['label'] or lease['holder']['id']} ({_share(lease)})"
        for lease in held
    )
    name = f"{device['kind'].upper()} {device['index']}: {device['name']}"
    said = device["problem"] or who or "free"
    row = {"name": name, "who": said, "standing": "", "is_mine": False}
    return {**row, **_amounts(use, device["memory_bytes"])}


def _share(lease: JSON) -> str:
    """How much it holds, and whether that is in host memory for now or gone."""
    residence = lease.get("residence") or {}
    is_away = residence.get("standing") in (DisplayState.SUSPENDED, DisplayState.LOST)
    return (
        f"{lease['spec']}, {residence['standing']}" if is_away else str(lease["spec"])
    )


def standing_words(lease: JSON) -> str:
    """How the device memory of a lease stands; empty where it never leaves its
    device.
    """
    residence = lease.get("residence")
    if not residence:
        return ""
    standing = str(residence["standing"])
    if standing == DisplayState.SUSPENDED and residence["state_bytes"] is not None:
        return f"{standing}, {format_bytes(residence['state_bytes'] * len(lease['slices']))} in host memory"
    if standing == DisplayState.LOST:
        return f"{standing}: restart the kernel"
    is_told = standing == DisplayState.PINNED and residence["why"]
    return f"{standing}: {residence['why']}" if is_told else standing


def _amounts(use: JSON, limit: int) -> dict[str, Any]:
    used = use.get("memory_bytes")
    load = use.get("utilization")
    return {
        "share": None if used is None or not limit else used / limit,
        "memory": f"{'n/a' if used is None else format_bytes(used)} of {format_bytes(limit)}",
        "busy": "n/a" if load is None else f"{load:.0%}",
    }
