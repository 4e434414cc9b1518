"""Records the usage of a host: reads its devices every few seconds, and writes down
who used how much.

Several processes may have a broker on one host; one of them records the usage of a
device. It has its name on the meters, and each bill names the meters it goes on from, so
that nothing is ever charged twice. Brokers whose launchers may use different devices
record each what no other does. When it falls silent another takes over; what happened meanwhile is
known in sum, and of whom it was only as far as leases and whole devices tell.
"""

from __future__ import annotations

import math
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from jupyter_aistack.core.accounting.attribution import charges_of
from jupyter_aistack.core.accounting.charges import (
    MeterState,
    UsageRecord,
    UsageSummary,
    day_of,
)
from jupyter_aistack.core.accounting.intervals import (
    GAP_SECONDS,
    Interval,
    ProcessLoad,
    calibrated,
    holdings,
    interval,
)
from jupyter_aistack.core.accounting.measurement import load_of
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.sample import HostSample
from jupyter_aistack.exceptions import LedgerConflict
from jupyter_aistack.ledger.base import Ledger

from .charged_totals import ChargedTotals, with_records
from .devices import DeviceManager

SETTLE_SECONDS = 10.0
"""Between two bills; each is one short transaction."""
LEAST_LOOK_SECONDS = 1.0
"""Between two looks: utilisation figures of the driver are no finer."""
SILENT_SECONDS = 30.0
"""A recorder that has not moved a meter for so long is gone."""
KEEP_CELLS_DAYS = 30
"""After so many days what cells cost becomes part of their leases."""
RECENT_LEASES = 200
"""Among so many of the newest leases are those that came and went between two looks."""
TIDY_SECONDS = 3600.0
FOLDED = 100
MOST_FOLDS = 200
"""So many charges in one transaction, which keeps others waiting for milliseconds; and
so many of those at a time.
"""
LATE_SECONDS = 60.0
"""So late may the word arrive that a cell ran."""


Pids = Callable[[Iterable[Lease]], Mapping[str, frozenset[int]]]


class UsageMeter:
    """Charges what the devices of a host and their leases use, as long as no other
    process does.

    Args:
        ledger: where usage is recorded.
        devices: what is measured.
        host: name of the machine.
        clock: seconds since the epoch.
        pids: finds the processes of leases.
        folds_cells: what cells cost becomes part of their leases here; else it does
            where it is archived.
    """

    # As the ledger has them; None while another process records usage.
    _written: dict[str, MeterState] | None
    _reached: dict[str, MeterState]  # as they were measured last
    _gone_by: list[Interval]  # not written down yet
    _unmetered: list[Interval]  # the same, from before a device's first reading
    _closed_at: float  # leases that ended until then are not ours to charge
    _known: dict[str, Lease]  # every lease seen since the last bill
    _live: dict[str, Lease]  # those of the last look
    _read_number: int | None  # of the last sample that was read
    _watched: frozenset[str]  # the devices of the last look
    _others: frozenset[str]  # those that other processes record

    def __init__(
        self,
        ledger: Ledger,
        devices: DeviceManager,
        *,
        host: str,
        clock: Callable[[], float],
        pids: Pids,
        folds_cells: bool = True,
    ) -> None:
        self._ledger = ledger
        self._devices = devices
        self._host = host
        self._clock = clock
        self._pids = pids
        self._folds_cells = folds_cells
        self._name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock = threading.Lock()
        self._away_until = float("-inf")
        self._tidied_at = float("-inf")
        self._searched_at = float("-inf")
        self._version: int | None = None
        self.charged: dict[str, ChargedTotals] = {}
        """What this process has charged since it started, by lease; of those that have
        ended, by user in sum.
        """
        self._close()

    @property
    def is_open(self) -> bool:
        """Whether this process records the host's usage now."""
        return self._written is not None

    def record(
        self, leases: Iterable[Lease], *, version: int, settle: bool = False
    ) -> None:
        """Measure what was used since the last time; write it down every ten seconds,
        or at once.

        With no leases left recording ends: a device without a lease is left
        asleep. What it draws until the next lease is the system's.

        Args:
            leases: the live leases of the host.
            version: the ledger's; while it stays the same, no lease has come and gone.
            settle: write down at once.

        Raises:
            LedgerError: it cannot be written; it is kept for the next time.
        """
        live = {lease.id: lease for lease in leases}
        with self._lock:
            now = self._clock()
            if not self.is_open and not self._opens(live, version, now, settle):
                return
            self._version = version
            is_last = not live
            is_at_once = settle or is_last
            if is_at_once or not 0 <= now - self._looked_at < LEAST_LOOK_SECONDS:
                self._measure(live, now, anew=is_at_once)
            if is_at_once or not 0 <= now - self._settled_at < SETTLE_SECONDS:
                self._settle(now, is_last=is_last)

    def transfer_metering(self) -> None:
        """Write down what was measured, and let another process record usage from
        now on.
        """
        with self._lock:
            if self.is_open:
                self._settle(self._clock(), is_last=True)

    # -- opening and closing -----------------------------------------------------------

    def _opens(
        self, live: Mapping[str, Lease], version: int, now: float, settle: bool
    ) -> bool:
        """Whether there is use to record, and no other process records it.

        Leases that came and went while recording was off are found in the ledger;
        it is searched for them once a second at most, as leases may be very short.
        """
        if live:
            return self._opened(now)
        is_soon = 0 <= now - self._searched_at < LEAST_LOOK_SECONDS
        if version == self._version or (is_soon and not settle):
            return False
        self._version = version
        self._searched_at = now
        return bool(self._ended_since_closed(now)) and self._opened(now)

    def _ended_since_closed(self, now: float) -> list[Lease]:
        return [
            lease
            for lease in self._recorded(now)
            if lease.ended_at is not None and lease.ended_at > self._closed_at
        ]

    def _recorded(self, now: float) -> tuple[Lease, ...]:
        """The newest leases of the host, those that have ended too."""
        return self._ledger.leases(
            now, host=self._host, live=False, limit=RECENT_LEASES
        )

    def _opened(self, now: float) -> bool:
        """Start to record, unless another process does."""
        if now < self._away_until <= now + SETTLE_SECONDS:
            return False
        meters = self._ledger.meters(self._host)
        others = self._recorded_by_others(meters, now)
        devices = self._devices.inventory().devices
        if others and all(d.id in others for d in devices if d.is_healthy):
            self._away_until = now + SETTLE_SECONDS
            return False
        self._others = others
        self._written = {m.device_id: m for m in meters if m.device_id not in others}
        self._reached = dict(self._written)
        return True

    def _recorded_by_others(
        self, meters: Iterable[MeterState], now: float
    ) -> frozenset[str]:
        """The devices that other processes record."""
        return frozenset(
            meter.device_id
            for meter in meters
            if meter.writer not in ("", self._name)
            and 0 <= now - meter.at < SILENT_SECONDS
        )

    def _take_over(self, now: float) -> None:
        """Record from now on what others have ceased to."""
        meters = self._ledger.meters(self._host)
        others = self._recorded_by_others(meters, now)
        left = {m.device_id: m for m in meters if m.device_id in self._others - others}
        self._written = {**left, **(self._written or {})}
        self._reached = {**left, **self._reached}
        self._others = others

    def _close(self) -> None:
        self._closed_at = self._clock()
        self._written = None
        self._reached = {}
        self._gone_by = []
        self._unmetered = []
        self._known = {}
        self._live = {}
        self._read_number = None
        self._watched = frozenset()
        self._others = frozenset()
        self._looked_at = self._settled_at = float("-inf")

    # -- looking -----------------------------------------------------------------------

    def _measure(self, live: Mapping[str, Lease], now: float, *, anew: bool) -> None:
        """Read the samples taken since the last reading, the newest of them taken now
        if need be.
        """
        before = self._read_number
        newest = self._devices.sample(
            list(live.values()),
            self._pids,
            # The first reading must be newer than what the previous recorder has
            # written: an older counter would be charged twice.
            max_age_seconds=0.0 if anew or before is None else LEAST_LOOK_SECONDS,
        )
        is_first = before is None
        self._known = {**self._known, **live}
        samples = [newest] if is_first else self._devices.samples_after(before or 0)
        for sample in samples:
            self._read(sample)
        self._live = dict(live)
        self._read_number = newest.number
        self._looked_at = now

    def _read(self, sample: HostSample) -> None:
        suspended = frozenset(
            lease_id
            for lease_id, lease in sample.leases.items()
            if lease.state is LeaseState.SUSPENDED
        )
        own = sample.devices.keys() - self._others
        devices = {i: d for i, d in sample.devices.items() if d.is_healthy and i in own}
        read = {i: device for i, device in devices.items() if i in sample.readings}
        for device_id, device in read.items():
            load = load_of(
                device, sample.readings[device_id], sample.leases, sample.pids
            )
            self._take(device, load, sample.at, suspended)
        self._watched = frozenset(read)

    def _take(
        self, device: Device, load: ProcessLoad, now: float, parked: frozenset[str]
    ) -> None:
        before = self._reached.get(device.id)
        if before is not None:
            is_silent = load.millijoules is None and before.millijoules is not None
            if is_silent and 0 <= now - before.at <= GAP_SECONDS:
                return  # its counter could not be read; the next reading covers both
            gone = interval(
                device, before, load, now, is_watched=device.id in self._watched
            )
            self._gone_by.append(replace(gone, suspended=parked))
        else:
            self._take_first(device, load, now, parked)
        start = before or MeterState(host=self._host, device_id=device.id, at=now)
        self._reached[device.id] = replace(start, at=now, millijoules=load.millijoules)

    def _take_first(
        self, device: Device, load: ProcessLoad, now: float, parked: frozenset[str]
    ) -> None:
        """A device that was never read: leases on it are charged for their time since
        they were granted, without energy.
        """
        leases = {lease.id: lease for lease in self._recorded(now)} | self._known
        granted = [
            lease.granted_at
            for lease in leases.values()
            if lease.granted_at >= self._closed_at
            and any(slice_.device_id == device.id for slice_ in lease.slices)
        ]
        start = min(granted, default=now)
        if start < now:
            begun = MeterState(host=self._host, device_id=device.id, at=start)
            gone = interval(device, begun, load, now, is_watched=False)
            self._unmetered.append(replace(gone, suspended=parked))

    # -- writing down ------------------------------------------------------------------

    def _settle(self, now: float, *, is_last: bool) -> None:
        try:
            bill = self._bill(now, is_last=is_last)
            self._ledger.settle(bill)
        except LedgerConflict:  # another process has charged this time
            self._close()
            self._away_until = now + SETTLE_SECONDS
            return
        self.charged = with_records(self.charged, bill.charges, self._live)
        self._tidy(now)
        if is_last:
            self._close()
            return
        self._written = dict(self._reached)
        self._gone_by = []
        self._known = dict(self._live)
        if not math.isinf(self._settled_at):
            self._unmetered = []
        self._settled_at = now
        if self._others:
            self._take_over(now)

    def _bill(self, now: float, *, is_last: bool) -> UsageSummary:
        writer = "" if is_last else self._name
        by_device: dict[str, list[Interval]] = {}
        for gone in self._gone_by:
            by_device.setdefault(gone.device.id, []).append(gone)
        self._reached = {
            i: replace(calibrated(meter, by_device.get(i, [])), writer=writer)
            for i, meter in self._reached.items()
        }
        written = self._written or {}
        return UsageSummary(
            before=tuple(meter for i, meter in written.items() if i in self._reached),
            after=tuple(self._reached.values()),
            charges=tuple(self._charges(self._due_intervals(is_last=is_last), now)),
        )

    def _due_intervals(self, *, is_last: bool) -> list[Interval]:
        """What is charged now. The first bill only claims the meters: the moments
        before it are charged with the next bill.
        """
        is_first = math.isinf(self._settled_at)
        if is_first and not is_last:
            return self._gone_by
        return [*self._unmetered, *self._gone_by]

    def _charges(self, intervals: Sequence[Interval], now: float) -> list[UsageRecord]:
        if not intervals:
            return []
        start = min(gone.start for gone in intervals)
        recorded = {lease.id: lease for lease in self._recorded(now)}
        leases = {**self._known, **recorded}
        cells = self._ledger.cells(self._host, start)
        return [
            record
            for gone in intervals
            for record in charges_of(
                gone,
                holdings(leases.values(), gone),
                self._reached[gone.device.id].idle_watts,
                cells,
            )
        ]

    def _tidy(self, now: float) -> None:
        if 0 <= now - self._tidied_at < TIDY_SECONDS:
            return
        self._tidied_at = now
        self._ledger.delete_cells(self._host, now - LATE_SECONDS)
        if not self._folds_cells:
            return
        for _ in range(MOST_FOLDS):
            if (
                self._ledger.aggregate_cells(day_of(now) - KEEP_CELLS_DAYS, FOLDED)
                < FOLDED
            ):
                return
