"""Devices that do not exist, for tours, tests and planning. Everything that shows them
says that they are simulated.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from jupyter_aistack.core.enforcement.device_visibility import DeviceVisibility
from jupyter_aistack.core.enforcement.limit_effect import LimitEffect
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Enforcement,
    MIGInstance,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.sample import DeviceSample, Usage
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import InvalidRequest, PrepareFailed

from .base import Provider, ProviderOptions
from .nvidia.visibility import VISIBILITY as NVIDIA

MAX_DEVICES = 1024
MEMORY_IN_USE = Fraction(7, 8)
"""The part of its memory a simulated lease holds while it is live."""


@dataclass(frozen=True, kw_only=True)
class SimulatedModel:
    """What is known of a GPU model: multiprocessors, and watts when idle and when
    busy.
    """

    multiprocessors: int
    idle_watts: int
    busy_watts: int


MODELS = {
    "A10": SimulatedModel(multiprocessors=72, idle_watts=20, busy_watts=150),
    "A100": SimulatedModel(multiprocessors=108, idle_watts=50, busy_watts=400),
    "A30": SimulatedModel(multiprocessors=56, idle_watts=30, busy_watts=165),
    "B200": SimulatedModel(multiprocessors=148, idle_watts=140, busy_watts=1000),
    "H100": SimulatedModel(multiprocessors=132, idle_watts=70, busy_watts=700),
    "H200": SimulatedModel(multiprocessors=132, idle_watts=75, busy_watts=700),
    "L4": SimulatedModel(multiprocessors=58, idle_watts=15, busy_watts=72),
    "L40S": SimulatedModel(multiprocessors=142, idle_watts=35, busy_watts=350),
    "RTX4090": SimulatedModel(multiprocessors=128, idle_watts=15, busy_watts=450),
    "T4": SimulatedModel(multiprocessors=40, idle_watts=10, busy_watts=70),
    "V100": SimulatedModel(multiprocessors=80, idle_watts=40, busy_watts=300),
}
_GROUP = re.compile(
    r"(\d{1,4})x([A-Z0-9]{1,10})-(\d{1,4})GB(?::mig=([1-7])g\.(\d{1,4})gb\*([1-7]))?",
    re.ASCII,
)
_ALLOWED = "8xH100-80GB, 2xH200-141GB+4xL4-24GB or 1xH200-141GB:mig=1g.18gb*7"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Like devices of a table: ``count`` x ``model`` with ``gigabytes``, each cut into
    ``instances`` of a MIG shape.
    """

    count: int
    model: str
    gigabytes: int
    mig_slices: int = 0
    mig_gigabytes: int = 0
    instances: int = 0

    @property
    def memory_bytes(self) -> int:
        return self.gigabytes * GIB

    @property
    def mig_eighths(self) -> int:
        """Memory slices in one instance, of the eight a GPU has."""
        return round(Fraction(8 * self.mig_gigabytes, self.gigabytes))


def parse_table(text: str) -> tuple[Group, ...]:
    """The groups in a table such as ``2xH200-141GB+4xL4-24GB``.

    Raises:
        InvalidRequest: naming the field ``providers``.
    """
    groups = tuple(_parse_group(part.strip()) for part in text.split("+"))
    if sum(group.count for group in groups) > MAX_DEVICES:
        raise _invalid(text, f"at most {MAX_DEVICES} devices")
    return groups


def _parse_group(text: str) -> Group:
    match = _GROUP.fullmatch(text)
    if match is None:
        raise _invalid(text, f"write it as {_ALLOWED}")
    count = int(match[1])
    model = match[2]
    gigabytes = int(match[3])
    if model not in MODELS:
        raise _invalid(text, f"the models known are {', '.join(MODELS)}")
    if count < 1 or gigabytes < 1:
        raise _invalid(text, "there must be at least one device, with at least 1 GB")
    slices, mig_gigabytes, instances = (int(part or 0) for part in match.group(4, 5, 6))
    group = Group(
        count=count,
        model=model,
        gigabytes=gigabytes,
        mig_slices=slices,
        mig_gigabytes=mig_gigabytes,
        instances=instances,
    )
    if instances and not (
        group.mig_eighths >= 1
        and instances * group.mig_eighths <= 8
        and instances * slices <= 7
    ):
        raise _invalid(
            text,
            f"{instances} instances of {slices}g.{mig_gigabytes}gb do not fit on {gigabytes} GB",
        )
    return group


def _invalid(shown: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"providers: {shown!r} is not a table of simulated devices; {why}",
        field="providers",
    )


@dataclass
class _Meter:
    """A simulated energy counter."""

    joules: float = 0.0
    read_at: float | None = None

    def advance(self, watts: float, now: float) -> float:
        self.joules += watts * (now - self.read_at) if self.read_at is not None else 0.0
        self.read_at = now
        return self.joules


@dataclass
class _Faults:
    devices: dict[str, str] = field(default_factory=dict)
    prepare: str = ""


class SimulatedProvider(Provider):
    """Devices from a table. Use follows the leases: the same leases always show the
    same use.

    Args:
        table: e.g. ``8xH100-80GB``; see `parse_table`.
        clock: seconds, for the energy counters.
    """

    name = "simulated"
    simulated = True
    is_automatic = False
    takes_argument = "TABLE"
    # Real GPUs are hidden: a process on a simulated GPU must not find any.
    visibility = DeviceVisibility(
        hidden=NVIDIA.hidden, lists=NVIDIA.lists, prefixes=NVIDIA.prefixes
    )

    def __init__(
        self, table: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._groups = parse_table(table)
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[str, Lease] = {}
        self._meters: dict[str, _Meter] = {}
        self._faults = _Faults()

    @classmethod
    def build(cls, options: ProviderOptions) -> SimulatedProvider:
        return cls(options.argument)

    def discover(self, host: str) -> tuple[Device, ...]:
        """The devices of the table, those configured to fail with their problem."""
        models = [group for group in self._groups for _ in range(group.count)]
        devices = [_device(group, index, host) for index, group in enumerate(models)]
        with self._lock:
            held: defaultdict[str, int] = defaultdict(int)
            for lease in self._leases.values():
                for slice_ in lease.effective_slices:
                    held[slice_.device_id] += _memory_in_use(slice_, lease)
        return tuple(
            replace(
                d,
                free_bytes=d.memory_bytes - held[d.id],
                problem=self._faults.devices.get(d.id, ""),
            )
            for d in devices
        )

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        """An environment that hides any real GPU and says that the device is
        simulated.
        """
        if self._faults.prepare:
            raise PrepareFailed(self._faults.prepare, lease_id=lease.id)
        own = _own_slices(lease, devices)
        with self._lock:
            self._leases[lease.id] = lease
        return Preparation(
            environment={**self.visibility.hidden, "AISTACK_SIMULATED": "1"},
            memory_limit_bytes=sum(slice_.memory_bytes for slice_ in own),
            enforced_by=Enforcement.SIMULATED,
        )

    def unprepare(self, lease: Lease) -> None:
        """Forget the lease's use."""
        with self._lock:
            self._leases.pop(lease.id, None)

    def adjust(
        self, lease: Lease, devices: Mapping[str, Device], pids: Collection[int]
    ) -> LimitEffect:
        """It makes believe that it uses what it may."""
        with self._lock:
            self._leases[lease.id] = lease
        return LimitEffect.NOW

    def has_moved(self, lease: Lease) -> None:
        """What it holds follows where its state is."""
        with self._lock:
            self._leases[lease.id] = lease

    def simulated_state(self, lease: Lease) -> int | None:
        """What `sample` makes believe that it holds."""
        slices = lease.effective_slices
        gpus = [slice_ for slice_ in slices if slice_.kind is not SliceKind.CPU]
        return max(
            (int(slice_.memory_bytes * MEMORY_IN_USE) for slice_ in gpus), default=0
        )

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        """Most of each live lease's memory, and a busy share that depends on its id
        alone; nothing while suspended. Power and energy of a device follow its leases.
        """
        with self._lock:
            live = {i: lease for i, lease in leases.items() if lease.is_live}
            self._leases = live if since is None else {**self._leases, **live}
            return {i: self._sample_of(device) for i, device in devices.items()}

    def fail(
        self, device_id: str, sentence: str = "fell off the bus (simulated)"
    ) -> None:
        """From now on, discover the device with this problem; ``sentence`` reads on
        after its name.
        """
        self._faults.devices[device_id] = sentence

    def fail_prepare(
        self, sentence: str = "the simulated slice cannot be made ready"
    ) -> None:
        """From now on, refuse to prepare any lease."""
        self._faults.prepare = sentence

    def recover(self) -> None:
        """End all failures."""
        self._faults = _Faults()

    def _sample_of(self, device: Device) -> DeviceSample:
        held = [
            (slice_, lease)
            for lease in self._leases.values()
            for slice_ in lease.effective_slices
            if slice_.device_id == device.id
        ]
        shares = [_busy_share(lease) * slice_.fraction for slice_, lease in held]
        busy = float(sum(shares))
        model = MODELS[device.name.split(" ")[1].partition("-")[0]]
        watts = model.idle_watts + busy * (model.busy_watts - model.idle_watts)
        meter = self._meters.setdefault(device.id, _Meter())
        return DeviceSample(
            memory_bytes=sum(_memory_in_use(slice_, lease) for slice_, lease in held),
            utilization=min(1.0, busy),
            power_watts=watts,
            millijoules=round(meter.advance(watts, self._clock()) * 1000),
            leases={lease.id: _use_on(lease, device) for _, lease in held},
        )


def _device(group: Group, index: int, host: str) -> Device:
    known = MODELS[group.model]
    return Device(
        id=f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{index}.{group.model}.{host}')}",
        host=host,
        kind=DeviceKind.GPU,
        index=index,
        name=f"NVIDIA {group.model}-{group.gigabytes}GB (simulated)",
        memory_bytes=group.memory_bytes,
        multiprocessors=known.multiprocessors,
        mig=tuple(
            _instance(group, index, number, host) for number in range(group.instances)
        ),
        mig_enabled=group.instances > 0,
        simulated=True,
    )


def _instance(group: Group, index: int, number: int, host: str) -> MIGInstance:
    return MIGInstance(
        uuid=f"MIG-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{number}.{index}.{group.model}.{host}')}",
        profile=f"{group.mig_slices}g.{group.mig_gigabytes}gb",
        memory_bytes=group.memory_bytes * group.mig_eighths // 8,
        multiprocessors=MODELS[group.model].multiprocessors // 8 * group.mig_slices,
        gpu_slices=group.mig_slices,
        compute_slices=group.mig_slices,
    )


def _own_slices(lease: Lease, devices: Mapping[str, Device]) -> list[Slice]:
    simulated = {i for i, device in devices.items() if device.simulated}
    slices = lease.effective_slices
    own = [slice_ for slice_ in slices if slice_.device_id in simulated]
    for slice_ in own:
        device = devices[slice_.device_id]
        if device.problem:
            raise PrepareFailed(
                f"{device.name} {device.problem}",
                lease_id=lease.id,
                device_id=device.id,
            )
    return own


def _use_on(lease: Lease, device: Device) -> Usage:
    slices = lease.effective_slices
    held = [slice_ for slice_ in slices if slice_.device_id == device.id]
    return Usage(
        memory_bytes=sum(_memory_in_use(slice_, lease) for slice_ in held),
        utilization=float(_busy_share(lease)),
    )


def _memory_in_use(slice_: Slice, lease: Lease) -> int:
    return 0 if _has_left(lease) else int(slice_.memory_bytes * MEMORY_IN_USE)


def _has_left(lease: Lease) -> bool:
    """Whether nothing of it is on its devices."""
    if lease.residence is None:
        return lease.state is LeaseState.SUSPENDED
    return lease.residence.phase in (StatePhase.PARKED, StatePhase.LOST)


def _busy_share(lease: Lease) -> Fraction:
    """Between 50 and 95 percent, always the same for one lease."""
    return Fraction(
        0 if _has_left(lease) else 50 + zlib.crc32(lease.id.encode()) % 46, 100
    )
