"""Measuring a run while it runs: who holds what, how much memory at most, how much
energy.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from jupyter_aistack.core.accounting.usage_report import (
    COVERED,
    Rates,
    carbon_of,
    cost_of,
)
from jupyter_aistack.exceptions import AIStackError

from .cost import (
    JOULES_PER_WATT_HOUR,
    WATT_HOURS_PER_KWH,
    Cost,
    own_leases,
    slice_hours,
)

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client

SAMPLE_SECONDS = 3.0
JSON = Mapping[str, Any]


class UsageDelta:
    """What the broker's books say of a stretch of a kernel's life: bills come in, their
    difference comes out.
    """

    def __init__(self) -> None:
        self.rates = Rates()
        self._first: JSON | None = None
        self._last: JSON = {}

    def add(self, bill: JSON) -> None:
        """A bill of this kernel; the first says from where to count."""
        self.rates = Rates(**bill["rates"])
        self._last = bill["leases"]
        if self._first is None:
            self._first = self._last

    @property
    def energy_wh(self) -> float | None:
        """Energy charged since the first bill; None where it is known for too small a
        part of the time.
        """
        seconds, metered, joules = (
            self._since(name)
            for name in ("gpu_seconds", "metered_seconds", "energy_joules")
        )
        is_known = seconds > 0 and metered >= COVERED * seconds
        return joules / JOULES_PER_WATT_HOUR if is_known else None

    def _since(self, name: str) -> float:
        first = self._first or {}
        return float(
            sum(
                sums[name] - first.get(i, {}).get(name, 0.0)
                for i, sums in self._last.items()
            )
        )


class SampleAccumulator:
    """Adds up samples. No clock and no transport: what was seen comes in, peaks and
    sums come out.
    """

    def __init__(self) -> None:
        self.leases: dict[str, JSON] = {}
        self.books = UsageDelta()
        self.peak_memory_bytes: int | None = None
        self._joules = 0.0
        self._counters: dict[str, float] = {}
        self._is_measured = False
        self._is_partial = False

    def add(self, leases: Iterable[JSON], usage: JSON) -> None:
        """One sample: the live leases of this kernel and its workers, and the use of
        the host as on the wire.
        """
        live = {lease["id"]: lease for lease in leases}
        self.leases.update(live)
        if any(lease.get("enforced_by") == "simulated" for lease in live.values()):
            self._is_partial = True  # the counter of a simulated device is made up
        used = [
            use["memory_bytes"] for name, use in usage["leases"].items() if name in live
        ]
        known = [memory for memory in used if memory is not None]
        if known:
            self.peak_memory_bytes = max(self.peak_memory_bytes or 0, sum(known))
        self._add_energy(_shares(live.values()), usage["devices"])

    def _add_energy(
        self, shares: Mapping[str, Fraction], devices: Mapping[str, JSON]
    ) -> None:
        for device_id, share in shares.items():
            counter = devices.get(device_id, {}).get("energy_joules")
            before = self._counters.get(device_id)
            if counter is None or (before is not None and counter < before):
                self._is_partial = (
                    True  # a part that cannot be known makes the sum unknown
                )
            elif before is not None:
                self._joules += float(min(share, Fraction(1))) * (counter - before)
                self._is_measured = True
        counters = {
            device_id: devices.get(device_id, {}).get("energy_joules")
            for device_id in shares
        }
        self._counters = {
            device_id: joules
            for device_id, joules in counters.items()
            if joules is not None
        }

    @property
    def energy_wh(self) -> float | None:
        """Energy so far; None unless every device held has a counter that was read
        twice.
        """
        return (
            self._joules / JOULES_PER_WATT_HOUR
            if self._is_measured and not self._is_partial
            else None
        )

    def cost(self, start: float, end: float) -> Cost:
        """What was used between `start` and `end` (seconds since the epoch)."""
        hours = slice_hours(self.leases.values(), start, end)
        booked = self.books.energy_wh
        energy = self.energy_wh if booked is None else booked
        kwh = None if energy is None else energy / WATT_HOURS_PER_KWH
        return Cost(
            gpu_slice_hours=hours["gpu"],
            cpu_slice_hours=hours["cpu"],
            energy_wh=energy,
            peak_memory_bytes=self.peak_memory_bytes,
            co2e_g=carbon_of(kwh, self.books.rates),
            cost=cost_of(hours["gpu"], kwh, self.books.rates),
            energy_by=""
            if energy is None
            else "share"
            if booked is None
            else "activity",
        )


class Meter:
    """Samples a kernel's use every few seconds from a thread of its own.

    A broker that does not answer is passed over: what cannot be measured is missing
        from the cost, and the run goes on.
    """

    def __init__(self, client: Client, *, interval: float = SAMPLE_SECONDS) -> None:
        self.gauge = SampleAccumulator()
        self._client = client
        self._interval = interval
        self._started_at = time.time()
        self._ended_at: float | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._work, name="aistack-meter", daemon=True
        )

    def start(self) -> None:
        """Take the first sample and go on sampling. Raises `AIStackError` when nobody
        answers.
        """
        self.sample()
        self._read_books()
        self._thread.start()

    def sample(self) -> None:
        """Take one sample now. Raises `AIStackError` when nobody answers."""
        leases = self._client.call("mine")["leases"]
        usage = self._client.call("usage")
        with self._lock:
            self.gauge.add(leases, usage)

    def stop(self) -> None:
        """Take the last sample, and learn of leases that came and went in between.
        Stopping twice is allowed.
        """
        if self._ended_at is not None:
            return
        self._stopped.set()
        self._ended_at = time.time()
        self._read_books()
        try:
            self.sample()
            everyone = self._client.call("leases", all=True)["leases"]
        except AIStackError:
            return
        with self._lock:
            own = own_leases(everyone, self.gauge.leases.values())
            self.gauge.leases.update(
                {lease["id"]: lease for lease in own if self._overlaps(lease)}
            )

    def _read_books(self) -> None:
        """Have what was used written down, and read it; a broker without books is
        passed over.
        """
        with contextlib.suppress(AIStackError):
            bill = self._client.call("bill", settle=True)
            with self._lock:
                self.gauge.books.add(bill)

    @property
    def cost(self) -> Cost:
        """What the run has cost: until now, or until it was stopped."""
        with self._lock:
            return self.gauge.cost(self._started_at, self._ended_at or time.time())

    def describe(self) -> dict[str, str]:
        """On what the work runs, as tags: the leases seen so far, and their devices."""
        with self._lock:
            leases = list(self.gauge.leases.values())
            energy_by = self.gauge.cost(
                self._started_at, self._ended_at or time.time()
            ).energy_by
        devices = {device["id"]: device for device in self._devices()}
        held = dict.fromkeys(
            piece["device_id"] for lease in leases for piece in lease["slices"]
        )
        used = [devices[device_id] for device_id in held if device_id in devices]
        return {
            "aistack.slice": _listed(lease["spec"] for lease in leases) or "none",
            "aistack.enforced_by": _listed(
                lease["enforced_by"] or "unknown" for lease in leases
            )
            or "none",
            "aistack.lease": _listed(lease["id"] for lease in leases) or "none",
            "aistack.device": _listed(device["name"] for device in used) or "none",
            "aistack.energy_by": energy_by or "unknown",
            "aistack.simulated": str(
                any(device["simulated"] for device in used)
            ).lower(),
        }

    def _devices(self) -> list[JSON]:
        try:
            devices: list[JSON] = self._client.call("host")["devices"]
        except AIStackError:
            return []
        return devices

    def _overlaps(self, lease: JSON) -> bool:
        return lease["ended_at"] is None or lease["ended_at"] > self._started_at

    def _work(self) -> None:
        while not self._stopped.wait(self._interval):
            with contextlib.suppress(
                AIStackError
            ):  # the next sample may be answered again
                self.sample()


def _listed(words: Iterable[str]) -> str:
    """The words in order, each once, with how often it came up: ``1/4, 2 x 1/8``;
    within what a tag may hold.
    """
    counted = Counter(words)
    return ", ".join(
        word if times == 1 else f"{times} x {word}" for word, times in counted.items()
    )[:8000]


def _shares(leases: Iterable[JSON]) -> dict[str, Fraction]:
    shares: dict[str, Fraction] = {}
    for lease in leases:
        for piece in lease["slices"]:
            shares[piece["device_id"]] = shares.get(
                piece["device_id"], Fraction(0)
            ) + Fraction(piece["fraction"])
    return shares
