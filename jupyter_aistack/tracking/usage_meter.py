"""Measuring a run while it runs: who holds what, how much memory at most, how much
energy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter, defaultdict
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
from .store import first_line
from .values import MAX_TAG

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client

log = logging.getLogger("jupyter_aistack")

SAMPLE_SECONDS = 3.0
JSON = Mapping[str, Any]


class UsageDelta:
    """What the broker has charged a kernel in a stretch of its life: its totals come in,
    their difference comes out.
    """

    def __init__(self) -> None:
        self.rates = Rates()
        self._first: JSON | None = None
        self._last: JSON = {}

    def add(self, bill: JSON) -> None:
        """Totals of this kernel so far; the first say from where to count."""
        self.rates = Rates(**bill["rates"])
        self._last = bill["leases"]
        if self._first is None:
            self._first = self._last

    @property
    def energy_wh(self) -> float | None:
        """Energy charged since the first totals; None where it is known for too small a
        part of the time.
        """
        seconds = self._since("gpu_seconds")
        metered = self._since("metered_seconds")
        is_known = seconds > 0 and metered >= COVERED * seconds
        return self._since("energy_joules") / JOULES_PER_WATT_HOUR if is_known else None

    @property
    def is_estimated(self) -> bool:
        """Whether a part of that energy was divided among leases by their share."""
        return self._since("energy_estimated_joules") > 0

    def _since(self, name: str) -> float:
        first = self._first or {}
        total = 0.0
        for lease_id, sums in self._last.items():
            total += sums[name] - first.get(lease_id, {}).get(name, 0.0)
        return total


class SampleAccumulator:
    """Adds up samples. No clock and no transport: samples come in, peaks and sums come
    out.

    Attributes:
        leases: every lease sampled so far, by id, as on the wire.
        charged: what the broker has charged meanwhile.
        peak_memory_bytes: the most in use at once; None where it was never known.
    """

    def __init__(self) -> None:
        self.leases: dict[str, JSON] = {}
        self.charged = UsageDelta()
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
        # The counter of a simulated device is made up.
        if any(lease.get("enforced_by") == "simulated" for lease in live.values()):
            self._is_partial = True
        self._add_memory(
            usage["leases"][name] for name in live.keys() & usage["leases"]
        )
        self._add_energy(_shares(live.values()), usage["devices"])

    def _add_memory(self, uses: Iterable[JSON]) -> None:
        sizes = [use["memory_bytes"] for use in uses]
        known = [size for size in sizes if size is not None]
        if known:
            self.peak_memory_bytes = max(self.peak_memory_bytes or 0, sum(known))

    def _add_energy(
        self, shares: Mapping[str, Fraction], devices: Mapping[str, JSON]
    ) -> None:
        counters: dict[str, float] = {}
        for device_id, share in shares.items():
            counter = devices.get(device_id, {}).get("energy_joules")
            before = self._counters.get(device_id)
            if counter is None:
                # A part that cannot be known makes the sum unknown.
                self._is_partial = True
                continue
            counters[device_id] = counter
            if before is None:
                continue
            if counter < before:  # the driver was loaded again
                self._is_partial = True
                continue
            self._joules += float(min(share, Fraction(1))) * (counter - before)
            self._is_measured = True
        self._counters = counters

    @property
    def energy_wh(self) -> float | None:
        """Energy so far; None unless every device held has a counter that was read
        twice.
        """
        if self._is_partial or not self._is_measured:
            return None
        return self._joules / JOULES_PER_WATT_HOUR

    @property
    def energy_by(self) -> str:
        """How the energy is divided among leases: by the broker's record of their
        ``activity``, else, even in part, by ``share``; empty where it is unknown.
        """
        if self.charged.energy_wh is not None:
            return "share" if self.charged.is_estimated else "activity"
        return "" if self.energy_wh is None else "share"

    def cost(self, start: float, end: float) -> Cost:
        """What was used between `start` and `end` (seconds since the epoch)."""
        hours = slice_hours(self.leases.values(), start, end)
        energy = self.charged.energy_wh
        if energy is None:
            energy = self.energy_wh
        kwh = None if energy is None else energy / WATT_HOURS_PER_KWH
        rates = self.charged.rates
        return Cost(
            gpu_slice_hours=hours["gpu"],
            cpu_slice_hours=hours["cpu"],
            energy_wh=energy,
            peak_memory_bytes=self.peak_memory_bytes,
            co2e_g=carbon_of(kwh, rates),
            cost=cost_of(hours["gpu"], kwh, rates),
            energy_by=self.energy_by,
        )


class RunMeter:
    """Samples a kernel's use every few seconds from a thread of its own.

    A broker that does not answer is passed over: what cannot be measured is missing
    from the cost, and the run goes on.

    Attributes:
        label: what the Jupyter server calls the notebook, as of the last answer; empty
            where none does.
    """

    def __init__(self, client: Client, *, interval: float = SAMPLE_SECONDS) -> None:
        self._samples = SampleAccumulator()
        self._client = client
        self._interval = interval
        self._started_at = time.time()
        self._ended_at: float | None = None
        self.label = ""
        # A signal may end the run while this thread holds the lock.
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._sample_until_stopped, name="aistack-meter", daemon=True
        )

    def start(self) -> None:
        """Take the first sample and go on sampling. Raises `AIStackError` when the
        broker does not answer.
        """
        self.sample()
        self._read_charges()
        self._thread.start()

    def sample(self) -> None:
        """Take one sample now. Raises `AIStackError` when the broker does not answer."""
        leases = self._leases()
        usage = self._client.call("usage")
        with self._lock:
            self._samples.add(leases, usage)

    def _leases(self) -> list[dict[str, Any]]:
        """The leases of this process; where it has none, those of the kernel that has
        started it, on whose slice it runs.
        """
        own: list[dict[str, Any]] = self._client.call("mine")["leases"]
        shared = frozenset(os.environ.get("AISTACK_LEASE", "").split(",")) - {""}
        if own or not shared:
            return own
        everybody = self._client.call("leases")["leases"]
        return [lease for lease in everybody if lease["id"] in shared]

    def stop(self) -> None:
        """Take the last sample, and learn of leases that came and went in between.
        Stopping twice is allowed.
        """
        if self._ended_at is not None:
            return
        self._stopped.set()
        self._ended_at = time.time()
        self._read_charges()
        try:
            self.sample()
            all_leases = self._client.call("leases", all=True)["leases"]
        except AIStackError:
            return
        with self._lock:
            sampled = self._samples.leases
            for lease in own_leases(all_leases, list(sampled.values())):
                if self._overlaps(lease):
                    sampled[lease["id"]] = lease

    def _read_charges(self) -> None:
        """Have the broker record what was used, and read it; a broker that records no
        usage is passed over.
        """
        with contextlib.suppress(AIStackError):
            bill = self._client.call("bill", settle=True)
            with self._lock:
                self._samples.charged.add(bill)
            self.label = bill.get("label") or self.label

    @property
    def has_leases(self) -> bool:
        """Whether any lease was sampled so far."""
        return bool(self._samples.leases)

    @property
    def cost(self) -> Cost:
        """What the run has cost: until now, or until it was stopped."""
        end = self._ended_at or time.time()
        with self._lock:
            return self._samples.cost(self._started_at, end)

    def describe(self) -> dict[str, str]:
        """On what the work runs, as tags: the leases sampled so far, and their
        devices.
        """
        with self._lock:
            leases = list(self._samples.leases.values())
            energy_by = self._samples.energy_by
        return _tags(leases, self._devices_of(leases), energy_by)

    def _devices_of(self, leases: Iterable[JSON]) -> list[JSON]:
        """The devices of these leases, each once; none where the broker does not
        answer.
        """
        try:
            devices = self._client.call("host")["devices"]
        except AIStackError:
            return []
        by_id = {device["id"]: device for device in devices}
        slices = [slice_ for lease in leases for slice_ in lease["slices"]]
        held = dict.fromkeys(slice_["device_id"] for slice_ in slices)
        return [by_id[device_id] for device_id in held if device_id in by_id]

    def _overlaps(self, lease: JSON) -> bool:
        return lease["ended_at"] is None or lease["ended_at"] > self._started_at

    def _sample_until_stopped(self) -> None:
        while not self._stopped.wait(self._interval):
            # The next sample may be answered again.
            with contextlib.suppress(AIStackError):
                self.sample()


def start_meter() -> RunMeter | None:
    """A running meter; None, with a warning, where no broker can be reached: the run
    goes on without its cost.
    """
    from jupyter_aistack.client import client

    try:
        meter = RunMeter(client.connect())
        meter.start()
    except AIStackError as error:
        log.warning(
            "tracking: the slice and its cost are not recorded (%s)", first_line(error)
        )
        return None
    return meter


def _tags(leases: list[JSON], devices: list[JSON], energy_by: str) -> dict[str, str]:
    enforced_by = [lease["enforced_by"] or "unknown" for lease in leases]
    is_simulated = any(device["simulated"] for device in devices)
    return {
        "aistack.slice": _listed(lease["spec"] for lease in leases),
        "aistack.enforced_by": _listed(enforced_by),
        "aistack.lease": _listed(lease["id"] for lease in leases),
        "aistack.device": _listed(device["name"] for device in devices),
        "aistack.energy_by": energy_by or "unknown",
        "aistack.simulated": str(is_simulated).lower(),
    }


def _listed(words: Iterable[str]) -> str:
    """The words in order, each once, with how often it came up: ``1/4, 2 x 1/8``;
    within what a tag may hold, and ``none`` for none.
    """
    counts = [
        word if times == 1 else f"{times} x {word}"
        for word, times in Counter(words).items()
    ]
    return ", ".join(counts)[:MAX_TAG] or "none"


def _shares(leases: Iterable[JSON]) -> dict[str, Fraction]:
    """The share of each device that the leases hold together."""
    shares: defaultdict[str, Fraction] = defaultdict(Fraction)
    for lease in leases:
        for slice_ in lease["slices"]:
            shares[slice_["device_id"]] += Fraction(slice_["fraction"])
    return shares
