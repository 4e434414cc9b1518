"""NVIDIA GPUs: whole ones, MIG instances that an administrator cut, and shares."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Enforcement,
    Fault,
    ProcessUse,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample
from jupyter_aistack.core.placement.mig_plan import MIGPermission, MIGPlan
from jupyter_aistack.exceptions import DriverNotFound, PrepareFailed, ProviderError
from jupyter_aistack.providers.base import Provider, ProviderOptions

from . import mig
from .enforcement import ShareEnforcer
from .memory_caps import caps, for_suspension, seen_bytes
from .mig_reconfigure import MIGReconfigurer
from .mps import MPSManager
from .nvml import NVML
from .sampler import GPUSampler
from .topology import PCILocation, places
from .usage import read_processes
from .version import driver_version
from .visibility import VISIBILITY

RETRY_LOST_SECONDS = 30.0
"""How often the driver is opened anew while a GPU is lost: only then does one that was
reset come back.
"""

PLACES_SECONDS = 60.0
"""How often the driver is asked what joins the GPUs; a question for each pair, and the
answer hardly ever changes.
"""

_GPU_KINDS = frozenset({SliceKind.GPU, SliceKind.MIG, SliceKind.SHARE})
# CUDA cores in one multiprocessor, by compute capability (major, minor) or major alone.
_CORES_PER_MULTIPROCESSOR = {
    7: 64,
    (8, 0): 64,
    8: 128,
    9: 128,
    10: 128,
    11: 128,
    12: 128,
}

_NAMELESS = "GPU-unknown-"  # prefix of the id of a GPU that never told its UUID
_GONE = "is no longer there; it fell off the bus or was removed"
_UNREADABLE = "does not let this user read its memory; ask the administrator for access"


@dataclass(frozen=True, kw_only=True)
class _Make:
    """A GPU's model: its name, and its number of multiprocessors (0: unknown)."""

    name: str
    multiprocessors: int


class GPUProvider(Provider):
    """The host's NVIDIA GPUs, as the driver describes them.

    Args:
        nvml: the connection to the driver.
        optional: a host without a driver is not a problem, it just has no GPU.
        mig_create: which MIG instances may be created for those who wait; None for
            none.
        clock: seconds since the epoch, as the driver stamps its samples.
        sharing: what holds shares to their size.
    """

    name = "gpu"
    order = 10
    visibility = VISIBILITY

    def __init__(
        self,
        nvml: NVML | None = None,
        *,
        optional: bool = False,
        mig_create: MIGPermission | None = None,
        clock: Callable[[], float] = time.time,
        sharing: ShareEnforcer | None = None,
    ) -> None:
        self._nvml = nvml or NVML()
        self._cutter = MIGReconfigurer(self._nvml, mig_create)
        self._sharing = sharing or ShareEnforcer(self._nvml, clock=clock)
        self._optional = optional
        self._clock = clock
        self._sampler = GPUSampler(self._nvml, self._sharing.servers_among)
        self._known: dict[str, Device] = {}
        self._makes: dict[str, _Make] = {}
        self._reopened_at = self._placed_at = -math.inf
        self._places: dict[str, PCILocation] = {}

    @classmethod
    def build(cls, options: ProviderOptions) -> GPUProvider:
        nvml = NVML()
        enforcer = ShareEnforcer(
            nvml,
            is_advisory=options.is_advisory,
            mps=MPSManager(strict=options.mps_strict),
        )
        return cls(
            nvml,
            optional=options.is_optional,
            sharing=enforcer,
            mig_create=options.mig_create,
        )

    def discover(self, host: str) -> tuple[Device, ...]:
        """Every GPU, the unusable ones with their problem; one seen before that is gone
        stays listed as lost.
        """
        self._reopen_if_lost()
        try:
            count = self._nvml.query("nvmlDeviceGetCount")
        except DriverNotFound as error:
            if self._optional and error.facts.get("library_missing"):
                return ()
            raise
        found = {
            device.id: device
            for device in self._placed(
                [self._device(index, host) for index in range(count)]
            )
        }
        missing = {i: device for i, device in self._known.items() if i not in found}
        gone = {
            i: replace(device, problem=_GONE, processes=())
            for i, device in missing.items()
        }
        self._known = {
            i: d for i, d in {**gone, **found}.items() if not i.startswith(_NAMELESS)
        }
        listed = sorted(
            (gone | found).values(), key=lambda device: (device.index, device.id)
        )
        return tuple(self._sharing.shown(device) for device in listed)

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        """CUDA_VISIBLE_DEVICES by UUID, what holds a share to its size, and caps for
        the frameworks.
        """
        slices = _gpu_slices(lease)
        devices = {
            i: self._sharing.is_reopened(device) for i, device in devices.items()
        }
        instances = [piece for piece in slices if piece.kind is SliceKind.MIG]
        if len(instances) > 1:
            raise PrepareFailed(
                f"a process can use one MIG instance; ask for {instances[0].profile} once for each worker",
                lease_id=lease.id,
            )
        for piece in slices:
            _check_usable(piece, devices)
        slices = tuple(mig.counted(piece, devices[piece.device_id]) for piece in slices)
        grip = self._sharing.grip(lease, slices, devices)
        visible = [piece.uuid for piece in slices]
        environment = {
            "CUDA_VISIBLE_DEVICES": ",".join(visible),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            # Asks NVML instead of starting CUDA, so that torch.cuda.is_available() does
            # not fix the devices too early.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }
        return Preparation(
            environment={
                **environment,
                **_caps_of(slices, devices, grip.level or Enforcement.L0),
                **grip.environment,
                **for_suspension(lease),
            },
            memory_limit_bytes=sum(piece.memory_bytes for piece in slices),
            enforced_by=grip.level or _weakest(slices),
            expects=replace(
                grip.expects,
                visible=tuple(visible),
                memory_total=_memory_seen(slices, devices),
            ),
            conditions=grip.conditions,
        )

    def unprepare(self, lease: Lease) -> None:
        """Take the lease's namespace, daemon and control group away."""
        self._sharing.release(
            lease,
            [
                (piece.device_id, self._index(piece.device_id))
                for piece in _gpu_slices(lease)
            ],
        )

    def enter(self, lease: Lease, pid: int) -> None:
        """Put the lease's control group around a process, where it has one."""
        self._sharing.enter(lease, pid)

    def clients(self, lease: Lease) -> frozenset[int] | None:
        """The clients of the MPS server that holds the lease."""
        device = self._device_of(lease)
        return None if device is None else self._sharing.clients(lease, device)

    def terminate(self, lease: Lease, pid: int) -> None:
        """End one client's work through the MPS server."""
        device = self._device_of(lease)
        if device is None:
            raise ProviderError(f"no MPS server holds lease {lease.id}")
        self._sharing.terminate(lease, device, pid)

    def driver_version(self) -> str:
        return driver_version()

    def faults(self) -> tuple[Fault, ...]:
        """Faults of MPS servers."""
        return self._sharing.faults()

    def _device_of(self, lease: Lease) -> Device | None:
        """The GPU of a lease that MPS may hold."""
        return next(
            (self._known.get(piece.device_id) for piece in _gpu_slices(lease)), None
        )

    def _index(self, device_id: str) -> int:
        known = self._known.get(device_id)
        return known.index if known is not None else 0

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        """What the driver reports of each GPU, and of each process on those with a
        lease.

        Who works is unknown on MIG, and under MPS where the driver counts the work as
        the server's. The driver's samples of processes come up to a second late.
        """
        uuids: dict[str, set[str]] = {}
        for lease in leases.values():
            for slice_ in _gpu_slices(lease):
                uuids.setdefault(slice_.device_id, set()).add(slice_.uuid)
        return self._sampler.sample(devices, uuids, self._clock(), since)

    def plan_room(self, wanted: Sequence[str], leased: Mapping[str, str]) -> MIGPlan:
        """Which MIG instances would be created, and which unused ones destroyed."""
        return self._cutter.plan(self._known.values(), wanted, leased)

    def make_room(
        self, wanted: Sequence[str], leased: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Create them, where the administrator allows it."""
        return self._cutter.make(self._known.values(), wanted, leased)

    def close(self) -> None:
        """Close NVML. MPS daemons that hold leases go on."""
        self._sharing.close()
        self._nvml.close()

    def _reopen_if_lost(self) -> None:
        is_due = not 0 <= self._clock() - self._reopened_at < RETRY_LOST_SECONDS
        if is_due and any(not device.is_healthy for device in self._known.values()):
            self._reopened_at = self._clock()
            self._makes = {}
            self._nvml.close()
            self._sharing.prober.forget()

    def _placed(self, devices: list[Device]) -> list[Device]:
        """The same GPUs with what joins them; instances of MIG are joined to
        nothing.
        """
        whole = {
            device.id: device.index
            for device in devices
            if device.is_healthy and not device.mig_enabled
        }
        is_old = not 0 <= self._clock() - self._placed_at < PLACES_SECONDS
        if is_old or whole.keys() != self._places.keys():
            self._places = places(self._nvml, whole)
            self._placed_at = self._clock()
        known = {
            device.id: self._places.get(device.id, PCILocation()) for device in devices
        }
        return [
            replace(d, peers=known[d.id].peers, domain=known[d.id].domain)
            for d in devices
        ]

    def _device(self, index: int, host: str) -> Device:
        """The GPU at `index`; when it does not answer, what is known of it and why."""
        try:
            handle = self._nvml.query("nvmlDeviceGetHandleByIndex", index)
            return self._describe(handle, index, host)
        except ProviderError as error:
            if "problem" not in error.facts:
                raise  # it concerns the driver, not this GPU
            return self._unusable(index, host, str(error.facts["problem"]))

    def _unusable(self, index: int, host: str, problem: str) -> Device:
        known = next(
            (device for device in self._known.values() if device.index == index), None
        )
        if known is not None:
            return replace(known, problem=problem, processes=())
        return Device(
            id=f"{_NAMELESS}{index}",
            host=host,
            kind=DeviceKind.GPU,
            index=index,
            name=f"GPU {index}",
            memory_bytes=0,
            problem=problem,
        )

    def _describe(self, handle: Any, index: int, host: str) -> Device:
        ask = self._nvml.query
        uuid = ask("nvmlDeviceGetUUID", handle)
        mig_enabled = ask("nvmlDeviceGetMigMode", handle, default=(0, 0))[0] == 1
        memory = ask("nvmlDeviceGetMemoryInfo", handle, default=None)
        handles = mig.instance_handles(self._nvml, handle) if mig_enabled else ()
        total = memory.total if memory else 0
        make = self._make(handle, uuid)
        known = mig.shapes(self._nvml, handle, total) if mig_enabled else ()
        instances = tuple(mig.describe(self._nvml, h, total, known) for h in handles)
        return Device(
            id=uuid,
            host=host,
            kind=DeviceKind.GPU,
            index=index,
            name=make.name or f"GPU {index}",
            # Where MIG is on, an ordinary user may read the instances' memory but not
            # the GPU's.
            memory_bytes=total or sum(instance.memory_bytes for instance in instances),
            multiprocessors=make.multiprocessors,
            mig=instances,
            mig_enabled=mig_enabled,
            mig_offers=self._cutter.offers(uuid, index, known),
            vendor="nvidia",
            processes=self._processes((handle, *handles)),
            free_bytes=memory.free if memory else None,
            problem="" if memory or mig_enabled else _UNREADABLE,
        )

    def _make(self, handle: Any, uuid: str) -> _Make:
        """What never changes of a GPU; the driver is asked until it has told all."""
        known = self._makes.get(uuid)
        if known is not None:
            return known
        make = _Make(
            name=str(self._nvml.query("nvmlDeviceGetName", handle, default="")),
            multiprocessors=self._multiprocessors(handle),
        )
        if make.name and make.multiprocessors:
            self._makes[uuid] = make
        return make

    def _multiprocessors(self, handle: Any) -> int:
        cores = self._nvml.query("nvmlDeviceGetNumGpuCores", handle, default=0)
        capability = tuple(
            self._nvml.query(
                "nvmlDeviceGetCudaComputeCapability", handle, default=(0, 0)
            )
        )
        each = _CORES_PER_MULTIPROCESSOR.get(
            capability
        ) or _CORES_PER_MULTIPROCESSOR.get(capability[0], 0)
        return int(cores // each) if each else 0

    def _processes(self, handles: Iterable[Any]) -> tuple[ProcessUse, ...]:
        """Who holds memory through any of the handles; a MIG instance's processes may
        show on the GPU's list too.
        """
        memory: dict[int, int] = {}
        for handle in handles:
            for pid, held in (read_processes(self._nvml, handle) or {}).items():
                memory[pid] = max(memory.get(pid, 0), held or 0)
        return tuple(
            ProcessUse(pid=p, memory_bytes=m, name=self._process_name(p))
            for p, m in sorted(memory.items())
        )

    def _process_name(self, pid: int) -> str:
        # The program alone: its arguments are nobody else's business.
        path = str(self._nvml.query("nvmlSystemGetProcessName", pid, default="")).split(
            " "
        )[0]
        return path.rsplit("/", 1)[-1]


def _memory_seen(slices: Sequence[Slice], devices: Mapping[str, Device]) -> int:
    """Bytes CUDA may report over all devices shown: an instance shows its own memory, a
    share the whole GPU's.
    """
    shown = {
        p.uuid: p.memory_bytes
        if p.kind is SliceKind.MIG
        else devices[p.device_id].memory_bytes
        for p in slices
    }
    return sum(shown.values())


def _caps_of(
    slices: Iterable[Slice], devices: Mapping[str, Device], level: Enforcement
) -> dict[str, str]:
    """Caps for the tightest of the slices that need any, as the frameworks take one
    figure for all devices.

    Under MPS too: a framework that is refused memory ends, and one that is capped makes
        do.
    """
    shown = (
        (piece, devices[piece.device_id].memory_bytes)
        for piece in slices
        if _is_advisory(piece)
    )
    sizes = [
        (piece.memory_bytes, seen_bytes(piece, whole, level)) for piece, whole in shown
    ]
    return (
        caps(*min(sizes, key=lambda size: size[0] / max(size[1], 1))) if sizes else {}
    )


def _is_advisory(piece: Slice) -> bool:
    """Whether nothing but the holder's good will keeps it to its memory."""
    return piece.kind is SliceKind.SHARE or mig.shares_memory(piece)


def _weakest(slices: Iterable[Slice]) -> Enforcement:
    """What holds the least firmly held of the slices."""
    pieces = list(slices)
    if any(_is_advisory(piece) for piece in pieces):
        return Enforcement.L0
    return (
        Enforcement.L4
        if all(piece.kind is SliceKind.MIG for piece in pieces)
        else Enforcement.WHOLE
    )


def _check_usable(piece: Slice, devices: Mapping[str, Device]) -> None:
    device = devices.get(piece.device_id)
    if device is None:
        raise PrepareFailed(
            f"{piece.device_id} is no longer there", device_id=piece.device_id
        )
    if device.problem:
        raise PrepareFailed(f"{device.name} {device.problem}", device_id=device.id)
    if piece.kind is SliceKind.MIG and piece.uuid not in {
        instance.uuid for instance in device.mig
    }:
        raise PrepareFailed(
            f"{device.name} has no MIG instance {piece.uuid} any more",
            device_id=device.id,
        )


def _gpu_slices(lease: Lease) -> tuple[Slice, ...]:
    return tuple(piece for piece in lease.slices if piece.kind in _GPU_KINDS)
