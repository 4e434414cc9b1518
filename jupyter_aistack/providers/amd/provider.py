"""Whole AMD GPUs only: what there is, what is in use, and the environment that shows a
process its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.context_memory import least_share_bytes
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Enforcement,
    ProcessUse,
    Slice,
)
from jupyter_aistack.core.model.device_health import UNKNOWN_HEALTH, DeviceFault
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample, Usage
from jupyter_aistack.exceptions import DriverNotFound, PrepareFailed, ProviderError
from jupyter_aistack.providers.base import Provider, ProviderOptions
from jupyter_aistack.system.pid_namespace import PidNamespace

from .allowance import AMDAllowance
from .amdsmi import AMDSMI
from .gpu_memory import GPUMemory, MemoryPool, held_by, memory_of, used_by
from .health import HealthMonitor
from .visibility import VISIBILITY

VENDOR = "amd"
RETRY_LOST_SECONDS = 30.0
"""How often the library is opened anew while a GPU is lost: handles do not outlive a
reset.
"""
NO_WATTS = 0xFFFF
"""What the library gives for power, and on some GPUs for activity, that it cannot
measure.
"""

_NAMELESS = "GPU-amd-"  # beginning of the id of a GPU that cannot be chosen by a UUID
_GONE = "is no longer there; it fell off the bus or was removed"
_NO_UUID = "has no UUID by which ROCm could choose it, so it cannot be leased"
_SPLIT = "is split into partitions that share one UUID, so they cannot be leased; the mode SPX makes it whole"


class AMDProvider(Provider):
    """The host's AMD GPUs, as AMD SMI describes them. Nothing is ever changed on them.

    Args:
        smi: the connection to the library.
        optional: a host without the library is not a problem, it just has no AMD GPU.
        clock: seconds since the epoch.
        namespace: tells which listed ids are of processes here.
        allowance: which GPUs the launcher of this process may use.
    """

    name = VENDOR
    order = 20
    visibility = VISIBILITY

    def __init__(
        self,
        smi: AMDSMI | None = None,
        *,
        optional: bool = False,
        clock: Callable[[], float] = time.time,
        namespace: PidNamespace | None = None,
        allowance: AMDAllowance | None = None,
    ) -> None:
        self._namespace = namespace or PidNamespace()
        self._smi = smi or AMDSMI()
        self._allowance = allowance or AMDAllowance(self._smi)
        self._optional = optional
        self._clock = clock
        self._health = HealthMonitor(self._smi, clock)
        self._known: dict[str, Device] = {}
        self._handles: dict[str, Any] = {}
        self._pools: dict[str, MemoryPool] = {}
        self._reopened_at = -math.inf

    @classmethod
    def build(cls, options: ProviderOptions) -> AMDProvider:
        return cls(optional=options.is_optional)

    def discover(self, host: str) -> tuple[Device, ...]:
        """Every GPU that the launcher of this process may use, unusable GPUs with their
        problem; a GPU seen before that is gone stays listed as lost.
        """
        self._reopen_if_lost()
        try:
            handles = self._smi.query("amdsmi_get_processor_handles")
        except DriverNotFound as error:
            if self._optional and error.facts.get("library_missing"):
                return ()
            raise
        self._handles = {}
        listed = [
            self._device(handle, index, host) for index, handle in enumerate(handles)
        ]
        present = {device.id: device for device in _told_apart(listed)}
        gone = {
            i: self._lost(d, _GONE) for i, d in self._known.items() if i not in present
        }
        self._known = {
            i: d for i, d in {**gone, **present}.items() if not i.startswith(_NAMELESS)
        }
        devices = sorted((gone | present).values(), key=lambda d: (d.index, d.id))
        return tuple(self._allowance.narrowed(devices, self._handles))

    def restore_faults(self, faults: Sequence[DeviceFault]) -> None:
        """Take over what is written down: since when it holds, and what the library is
        silent about now.
        """
        self._health.restore(faults)

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        """ROCR_VISIBLE_DEVICES by UUID, which ROCm's lowest layer obeys whatever runs
        on it.

        HIP numbers anew what is left then, and reads CUDA_VISIBLE_DEVICES where it
        finds no variable of its own, so both are set too; torch refuses more HIP than
        ROCR devices (``torch.cuda._parse_visible_devices``).
        """
        own = [
            _usable(slice_, devices)
            for slice_ in lease.slices
            if _is_ours(slice_, devices)
        ]
        if not own:
            raise PrepareFailed("its AMD GPU is no longer there", lease_id=lease.id)
        numbers = ",".join(map(str, range(len(own))))
        return Preparation(
            environment={
                "ROCR_VISIBLE_DEVICES": ",".join(device.id for device in own),
                "HIP_VISIBLE_DEVICES": numbers,
                "GPU_DEVICE_ORDINAL": numbers,
                "CUDA_VISIBLE_DEVICES": "",
            },
            memory_limit_bytes=sum(device.memory_bytes for device in own),
            enforced_by=Enforcement.WHOLE,
        )

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        """What each GPU's own counters report. A lease is as busy as its GPUs are, as
        they are its own alone; the memory is that of its processes.
        """
        return {i: self._sample_of(i, leases, pids) for i in devices}

    @property
    def allowance(self) -> str:
        return self._allowance.text

    def close(self) -> None:
        """Close the library."""
        self._smi.close()

    def _reopen_if_lost(self) -> None:
        is_due = not 0 <= self._clock() - self._reopened_at < RETRY_LOST_SECONDS
        if is_due and any(not device.is_healthy for device in self._known.values()):
            self._reopened_at = self._clock()
            self._smi.close()

    # -- what there is -----------------------------------------------------------------

    def _device(self, handle: Any, index: int, host: str) -> Device:
        """The GPU behind a handle; when it does not answer, what is known of it and
        why.
        """
        try:
            memory = memory_of(self._smi, handle)
            device = self._describe(handle, index, host, memory)
            self._handles[device.id] = handle
            self._pools[device.id] = memory.pool
            return device
        except ProviderError as error:
            if "problem" not in error.facts:
                raise  # it concerns the driver, not this GPU
            problem = str(error.facts["problem"])
            is_sick = error.facts.get("health_code") is not None
        known = next(
            (device for device in self._known.values() if device.index == index), None
        )
        if known is not None and is_sick:
            return self._lost(known, problem)
        if known is not None:
            silent = UNKNOWN_HEALTH
            return replace(known, problem=problem, processes=(), health=silent)
        return _blank(f"{_NAMELESS}{index}", index, host, problem)

    def _lost(self, device: Device, problem: str) -> Device:
        """A GPU that no longer answers."""
        health = self._health.unanswered(device.id, problem)
        return replace(device, problem=problem, processes=(), health=health)

    def _describe(
        self, handle: Any, index: int, host: str, memory: GPUMemory
    ) -> Device:
        asic = self._smi.query("amdsmi_get_gpu_asic_info", handle)
        uuid = self._uuid(handle, asic)
        units = asic["num_compute_units"]
        health = self._health.inspect(handle, uuid) if uuid else UNKNOWN_HEALTH
        problem = health.problem if uuid else _NO_UUID
        device = _blank(uuid or f"{_NAMELESS}{index}", index, host, problem)
        return replace(
            device,
            name=asic["market_name"] if asic["market_name"] != "N/A" else device.name,
            memory_bytes=memory.total,
            used_bytes=memory.used,
            multiprocessors=units if isinstance(units, int) else 0,
            processes=self._processes(handle, memory.pool),
            least_share_bytes=least_share_bytes(None),
            health=health,
        )

    def _uuid(self, handle: Any, asic: Mapping[str, Any]) -> str:
        """The name by which ROCm knows the GPU, ``GPU-`` and sixteen digits of its
        unique id; empty for none.
        """
        hip_uuid = self._smi.query(
            "amdsmi_get_gpu_enumeration_info", handle, default={}
        ).get("hip_uuid", "")
        serial = str(asic["asic_serial"]).removeprefix("0x").lower()
        uuid = (
            hip_uuid.lower().replace("gpu-", "GPU-")
            if hip_uuid
            else f"GPU-{serial.rjust(16, '0')}"
        )
        return (
            ""
            if (serial == "n/a" and not hip_uuid)
            or not uuid.removeprefix("GPU-").strip("0")
            else uuid
        )

    def _processes(
        self, handle: Any, pool: MemoryPool
    ) -> tuple[ProcessUse, ...] | None:
        listed = _complete(
            self._smi.query("amdsmi_get_gpu_process_list", handle, default=None)
        )
        if listed is None:
            return None
        return tuple(
            ProcessUse(pid=p["pid"], memory_bytes=used_by(p, pool), name=_program(p))
            for p in listed
        )

    # -- measuring ---------------------------------------------------------------------

    def _sample_of(
        self,
        device_id: str,
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
    ) -> DeviceSample:
        busy = self._busy(device_id)
        holders = [
            lease_id for lease_id, lease in leases.items() if _holds(lease, device_id)
        ]
        ours = frozenset().union(*pids.values())
        listed = self._listed(device_id, ours) if holders else ()
        pool = self._pools.get(device_id, MemoryPool.OWN)
        return DeviceSample(
            memory_bytes=self._used(device_id, pool),
            utilization=busy,
            power_watts=self._watts(device_id),
            millijoules=self._millijoules(device_id),
            leases={
                lease_id: Usage(
                    memory_bytes=held_by(listed, pids.get(lease_id), pool),
                    utilization=busy,
                )
                for lease_id in holders
            },
            others=None if busy is None else 0.0,
        )

    def _listed(
        self, device_id: str, ours: frozenset[int]
    ) -> Sequence[Mapping[str, Any]] | None:
        """The processes on a GPU; None where they cannot be told, or some are of
        another PID namespace and so may be anybody's.
        """
        listed = _complete(self._ask(device_id, "amdsmi_get_gpu_process_list"))
        others = {process["pid"] for process in listed or ()} - ours
        return None if self._namespace.elsewhere(others) else listed

    def _used(self, device_id: str, pool: MemoryPool) -> int | None:
        ask = "amdsmi_get_gpu_memory_usage"
        used: int | None = self._ask(device_id, ask, self._smi.memory_type(pool))
        return used

    def _watts(self, device_id: str) -> float | None:
        power = self._ask(device_id, "amdsmi_get_power_info") or {}
        names = ("current_socket_power", "average_socket_power", "socket_power")
        figures = [_figure(power.get(name)) for name in names]
        return next((watts for watts in figures if watts is not None), None)

    def _millijoules(self, device_id: str) -> int | None:
        energy = self._ask(device_id, "amdsmi_get_energy_count")
        if not energy:
            return None
        # Counted in units of so many microjoules.
        microjoules: float = energy["energy_accumulator"] * energy["counter_resolution"]
        return round(microjoules / 1000)

    def _busy(self, device_id: str) -> float | None:
        activity = self._ask(device_id, "amdsmi_get_gpu_activity") or {}
        percent = _figure(activity.get("gfx_activity"))
        return None if percent is None else percent / 100

    def _ask(self, device_id: str, function: str, *args: Any) -> Any:
        """The library's answer, or None: one GPU in trouble must not hide what the
        others do.
        """
        handle = self._handles.get(device_id)
        try:
            return (
                None
                if handle is None
                else self._smi.query(function, handle, *args, default=None)
            )
        except ProviderError:
            return None


def _blank(device_id: str, index: int, host: str, problem: str) -> Device:
    return Device(
        id=device_id,
        host=host,
        kind=DeviceKind.GPU,
        index=index,
        name=f"AMD GPU {index}",
        memory_bytes=0,
        vendor=VENDOR,
        is_divisible=False,
        problem=problem,
    )


def _told_apart(devices: Sequence[Device]) -> list[Device]:
    """The GPUs, one for each UUID: where several have the same, none can be chosen by
    it.
    """
    ids = [device.id for device in devices]
    first = {device.id: device for device in reversed(devices)}
    return [
        replace(d, problem=_SPLIT) if ids.count(i) > 1 and not d.problem else d
        for i, d in first.items()
    ]


def _is_ours(slice_: Slice, devices: Mapping[str, Device]) -> bool:
    device = devices.get(slice_.device_id)
    return device is not None and device.vendor == VENDOR


def _usable(slice_: Slice, devices: Mapping[str, Device]) -> Device:
    device = devices[slice_.device_id]
    if device.problem:
        raise PrepareFailed(f"{device.name} {device.problem}", device_id=device.id)
    return device


def _holds(lease: Lease, device_id: str) -> bool:
    return any(slice_.device_id == device_id for slice_ in lease.slices)


def _complete(listed: Any) -> Sequence[Mapping[str, Any]] | None:
    """A list of processes; None where there is none, or an entry is kept secret."""
    if listed is None or not all(isinstance(each, Mapping) for each in listed):
        return None
    return tuple(listed)


def _program(process: Mapping[str, Any]) -> str:
    # The program alone: its arguments may be private to its user.
    name = str(process.get("name", "")).split(" ")[0]
    return "" if name == "N/A" else name.rsplit("/", 1)[-1]


def _figure(value: object) -> float | None:
    is_known = isinstance(value, (int, float)) and 0 <= value < NO_WATTS
    return float(value) if is_known else None  # type: ignore[arg-type]
