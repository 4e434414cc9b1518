"""One sample of all devices of a host, for all readers of what is in use."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jupyter_aistack.core.model.device import Device, Inventory
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.sample import DeviceSample, HostSample, UnitSample
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.system.pid_namespace import PidNamespace

from .guarded_provider import GuardedProvider

MEASURED_SECONDS = 2.5
"""How far back activity is reported for leases that are measured out of turn."""
KEPT_SAMPLES = 64
"""So many samples wait for the usage meter."""

Pids = Mapping[str, frozenset[int]]
"""The processes of leases, by lease id."""
Processes = Callable[[Iterable[Lease]], Pids]
OwnedDevices = tuple[GuardedProvider, Mapping[str, Device]]
"""A provider, and its devices by id."""


JOIN_SECONDS = 0.25
"""How far apart the beginnings of activity may be that one answer is for."""


@dataclass
class _FreshBatch:
    """Callers who are answered by one fresh sample.

    Attributes:
        start: since when activity is reported.
        leases, pids: of all of them.
        sample: the answer; None before it is there.
    """

    start: float
    leases: dict[str, Lease] = field(default_factory=dict)
    pids: dict[str, frozenset[int]] = field(default_factory=dict)
    sample: HostSample | None = None

    def is_open_to(self, start: float) -> bool:
        return abs(start - self.start) <= JOIN_SECONDS

    def join(self, leases: Iterable[Lease], pids: Pids, start: float) -> None:
        self.start = min(self.start, start)
        for lease in leases:
            known = self.pids.get(lease.id, frozenset())
            self.leases[lease.id] = lease
            self.pids[lease.id] = known | pids.get(lease.id, frozenset())


class HostSampler:
    """Asks each provider once, and keeps what they answer.

    Args:
        inventory: gives the devices of the host.
        by_owner: gives devices by their provider.
        clock: seconds since the epoch.
        namespace: tells which listed ids are of processes here.
    """

    def __init__(
        self,
        inventory: Callable[[], Inventory],
        by_owner: Callable[[Mapping[str, Device]], list[OwnedDevices]],
        clock: Callable[[], float],
        namespace: PidNamespace,
    ) -> None:
        self._inventory = inventory
        self._by_owner = by_owner
        self._clock = clock
        self._namespace = namespace
        self._lock = threading.Lock()
        self._samples: deque[HostSample] = deque(maxlen=KEPT_SAMPLES)
        self._numbers = itertools.count(1)
        self._batch: _FreshBatch | None = None
        self._joining = threading.Lock()
        # Beside the lock of the samples: a tick that hangs in a driver must not keep
        # the end of a process waiting.
        self._refreshing = threading.Lock()

    @property
    def latest(self) -> HostSample | None:
        """The newest sample; None before the first."""
        return self._samples[-1] if self._samples else None

    def after(self, number: int) -> tuple[HostSample, ...]:
        """The samples taken since the sample of this number, oldest first; the last
        `KEPT_SAMPLES` of them at most.
        """
        return tuple(sample for sample in self._samples if sample.number > number)

    def sample(
        self, leases: Sequence[Lease], pids: Processes, max_age_seconds: float
    ) -> HostSample:
        """What every device reports, asked anew only where the newest sample is older
        than `max_age_seconds` or was taken for other leases.

        The first caller in a tick has the drivers asked; all others read the same
        object.

        Args:
            leases: the live leases of the host.
            pids: gives the processes of leases, where they are known; called only when
                a sample is taken, as it walks all processes of the host.
            max_age_seconds: how old the answer may be.
        """
        with self._lock:
            latest = self.latest
            now = self._clock()
            if latest is not None and _serves(latest, leases, now, max_age_seconds):
                return latest

            sample = self._take(leases, pids(leases), latest)
            self._samples.append(sample)
            return sample

    def fresh(
        self, leases: Sequence[Lease], pids: Pids, since: float | None
    ) -> HostSample:
        """What the devices of some leases report at this very moment, activity since
        `since` or over the last seconds.

        It is not kept, and cuts no sample's time short. Callers who come while the
        drivers are being asked share the next answer: a slow driver is asked once for
        all of them.
        """
        start = self._clock() - MEASURED_SECONDS if since is None else since
        with self._joining:
            batch = self._batch
            if batch is None or not batch.is_open_to(start):
                batch = self._batch = _FreshBatch(start=start)
            batch.join(leases, pids, start)

        with self._refreshing:
            if batch.sample is None:
                self._close(batch)
                batch.sample = self._take_fresh(batch)
            return batch.sample

    def _close(self, batch: _FreshBatch) -> None:
        # Who comes from here on must not be answered by what is read now.
        with self._joining:
            if self._batch is batch:
                self._batch = None

    def _take_fresh(self, batch: _FreshBatch) -> HostSample:
        now = self._clock()
        home = {
            slice_.device_id
            for lease in batch.leases.values()
            for slice_ in lease.slices
        }
        devices = {d.id: d for d in self._inventory().devices if d.id in home}
        readings = self._readings(devices, batch.leases, batch.pids, batch.start)
        return HostSample(
            number=0,
            at=now,
            leases=batch.leases,
            pids=batch.pids,
            devices=devices,
            readings=readings,
        )

    def _take(
        self, leases: Sequence[Lease], pids: Pids, before: HostSample | None
    ) -> HostSample:
        live = {lease.id: lease for lease in leases}
        # A lease that ended between two samples worked until then: its processes are as
        # they were, and the driver still has samples of them.
        ended = {} if before is None else _ended_since(before, live)
        known = {} if before is None else before.pids
        own = {lease_id: known[lease_id] for lease_id in ended if lease_id in known}

        held = {**ended, **live}
        processes = {**own, **pids}
        devices = {device.id: device for device in self._inventory().devices}
        readings = self._readings(devices, held, processes, None)
        return HostSample(
            number=next(self._numbers),
            at=self._clock(),
            leases=held,
            pids=processes,
            devices=devices,
            readings=readings,
        )

    def _readings(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Pids,
        since: float | None,
    ) -> dict[str, DeviceSample]:
        """One question to each provider."""
        readings: dict[str, DeviceSample] = {}
        for provider, own in self._by_owner(devices):
            held = {i: lease for i, lease in leases.items() if _is_on(lease, own)}
            # A device of which nothing is reported is there, and unknown.
            readings.update({device_id: DeviceSample() for device_id in own})
            try:
                readings.update(provider.sample(own, held, pids, since))
            except ProviderError:  # the inventory says it
                readings.update(_unread(own, held.values()))
        return self._told_apart(readings, pids)

    def _told_apart(
        self, readings: Mapping[str, DeviceSample], pids: Pids
    ) -> dict[str, DeviceSample]:
        """The readings, without the lists of processes that are of another PID
        namespace: whose those are cannot be told.
        """
        ours = frozenset().union(*pids.values())
        listed = {
            pid
            for reading in readings.values()
            for unit in reading.units.values()
            for pid in (*(unit.memory or ()), *(unit.busy or ()))
        }
        elsewhere = self._namespace.elsewhere(listed - ours)
        if not elsewhere:
            return dict(readings)
        return {
            device_id: replace(
                reading,
                units={
                    uuid: _without(unit, elsewhere)
                    for uuid, unit in reading.units.items()
                },
            )
            for device_id, reading in readings.items()
        }


def _serves(
    sample: HostSample, leases: Iterable[Lease], now: float, max_age_seconds: float
) -> bool:
    """Whether a sample is young enough and was taken for these leases."""
    age = now - sample.at
    is_young = age == 0 or 0 < age < max_age_seconds
    return is_young and all(lease.id in sample.leases for lease in leases)


def _ended_since(before: HostSample, live: Container[str]) -> dict[str, Lease]:
    return {
        lease_id: replace(lease, state=LeaseState.ENDED)
        for lease_id, lease in before.leases.items()
        if lease.is_live and lease_id not in live
    }


def _without(unit: UnitSample, elsewhere: frozenset[int]) -> UnitSample:
    """A unit, each of its lists unknown that names such a process."""
    is_held_elsewhere = not elsewhere.isdisjoint(unit.memory or ())
    is_busy_elsewhere = not elsewhere.isdisjoint(unit.busy or ())
    return replace(
        unit,
        memory=None if is_held_elsewhere else unit.memory,
        busy=None if is_busy_elsewhere else unit.busy,
    )


def _is_on(lease: Lease, devices: Container[str]) -> bool:
    return any(slice_.device_id in devices for slice_ in lease.slices)


def _unread(devices: Iterable[str], leases: Iterable[Lease]) -> dict[str, DeviceSample]:
    """Samples of devices that could not be read: the lists of processes on them exist,
    and are unknown.
    """
    slices = [slice_ for lease in leases for slice_ in lease.slices if slice_.uuid]
    unread = {}
    for device_id in devices:
        own = [slice_ for slice_ in slices if slice_.device_id == device_id]
        units = {slice_.uuid: UnitSample() for slice_ in own}
        unread[device_id] = DeviceSample(units=units)
    return unread
