"""What GPUs there are, as the driver describes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from jupyter_aistack.core.model.context_memory import least_share_bytes
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    ProcessUse,
)
from jupyter_aistack.core.model.device_health import (
    UNKNOWN_HEALTH,
    DeviceFault,
    DeviceHealth,
    HealthCode,
)
from jupyter_aistack.exceptions import DeviceLost, ProviderError

from . import mig
from .gpu_memory import memory_of
from .health import HealthMonitor
from .mig_reconfigure import MIGReconfigurer
from .nvml import NO_PERMISSION, NVML
from .topology import PCILocation, places
from .usage import processes_if_known

RETRY_LOST_SECONDS = 30.0
"""How often the driver is opened anew while a GPU is lost: only then does a GPU that
was reset come back.
"""

PLACES_SECONDS = 60.0
"""How often the driver is asked what joins the GPUs; a question for each pair, and the
answer hardly ever changes.
"""

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

_NAMELESS = "GPU-unknown-"  # prefix of the id of a GPU that never reported its UUID
_GONE = "is no longer there; it fell off the bus or was removed"
_UNREADABLE = "does not let this user read its memory; ask the administrator for access"


@dataclass(frozen=True, kw_only=True)
class _Make:
    """A GPU's model: its name, and its number of multiprocessors (0: unknown)."""

    name: str
    multiprocessors: int


class GPUDiscovery:
    """Describes GPUs again and again; a GPU that was there before and is gone stays
    listed.

    Args:
        nvml: the connection to the driver.
        cutter: tells which MIG instances may be created.
        clock: seconds since the epoch.
        on_reopen: called when the driver has been closed to be opened anew.
    """

    def __init__(
        self,
        nvml: NVML,
        cutter: MIGReconfigurer,
        clock: Callable[[], float],
        on_reopen: Callable[[], None],
    ) -> None:
        self._nvml = nvml
        self._cutter = cutter
        self._clock = clock
        self._on_reopen = on_reopen
        self._health = HealthMonitor(nvml, clock)
        self.known: dict[str, Device] = {}
        self.refused: frozenset[str] = frozenset()
        """Ids of the GPUs that the driver does not let this user open."""
        self._makes: dict[str, _Make] = {}
        self._places: dict[str, PCILocation] = {}
        self._reopened_at = -math.inf
        self._placed_at = -math.inf

    def discover(self, host: str) -> list[Device]:
        """Every GPU, unusable GPUs with their problem.

        Raises:
            DriverNotFound, ProviderError: the driver does not answer.
        """
        self._reopen_if_lost()
        self.refused = frozenset()
        count = self._nvml.query("nvmlDeviceGetCount")
        listed = self._placed([self._device(index, host) for index in range(count)])
        self._health.listen()
        present = {device.id: device for device in listed}
        gone = {
            device_id: self._gone(device)
            for device_id, device in self.known.items()
            if device_id not in present
        }
        devices = {**gone, **present}
        self.known = {
            device_id: device
            for device_id, device in devices.items()
            if not device_id.startswith(_NAMELESS)
        }
        return sorted(devices.values(), key=lambda device: (device.index, device.id))

    def restore_faults(self, faults: Iterable[DeviceFault]) -> None:
        """Take over what is written down of GPUs; see `Provider.restore_faults`."""
        self._health.restore(faults)

    def _gone(self, device: Device) -> Device:
        """A GPU that the driver does not list any more."""
        health = self._health.unanswered(
            device.id, HealthCode.FELL_OFF_BUS, _GONE, is_lost=True
        )
        return replace(device, problem=health.problem, processes=(), health=health)

    def _reopen_if_lost(self) -> None:
        # Handles do not outlive a reset: a lost GPU comes back only to a driver that is
        # opened anew.
        is_due = not 0 <= self._clock() - self._reopened_at < RETRY_LOST_SECONDS
        if is_due and any(not device.is_healthy for device in self.known.values()):
            self._reopened_at = self._clock()
            self._makes = {}
            self._nvml.close()
            self._on_reopen()

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
        placed = []
        for device in devices:
            place = self._places.get(device.id, PCILocation())
            placed.append(replace(device, peers=place.peers, domain=place.domain))
        return placed

    def _device(self, index: int, host: str) -> Device:
        """The GPU at `index`; when it does not answer, what is known of it and why."""
        try:
            handle = self._nvml.query("nvmlDeviceGetHandleByIndex", index)
            return self._describe(handle, index, host)
        except ProviderError as error:
            if "problem" not in error.facts:
                raise  # it concerns the driver, not this GPU
            device = self._unusable(index, host, str(error.facts["problem"]))
            health = self._health_by(error, device)
            problem = health.problem or device.problem
            device = replace(device, problem=problem, health=health)
            if error.facts.get("nvml_code") == NO_PERMISSION:
                self.refused |= {device.id}
            return device

    def _health_by(self, error: ProviderError, device: Device) -> DeviceHealth:
        """The health of a GPU by the error that it answers with, where that is one of
        the GPU itself, and it has a name by which it is known again.
        """
        code = error.facts.get("health_code")
        if not isinstance(code, HealthCode) or device.id.startswith(_NAMELESS):
            return UNKNOWN_HEALTH
        is_lost = isinstance(error, DeviceLost)
        return self._health.unanswered(device.id, code, device.problem, is_lost=is_lost)

    def _unusable(self, index: int, host: str, problem: str) -> Device:
        known = next(
            (device for device in self.known.values() if device.index == index), None
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
        memory = memory_of(self._nvml, handle, is_cut=mig_enabled)
        handles = mig.instance_handles(self._nvml, handle) if mig_enabled else ()
        total = memory.total if memory else 0
        usable = memory.usable if memory else 0
        make = self._make(handle, uuid)
        health = self._health.inspect(handle, uuid)
        unreadable = "" if memory or mig_enabled else _UNREADABLE
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
            memory_bytes=usable or sum(instance.memory_bytes for instance in instances),
            multiprocessors=make.multiprocessors,
            mig=instances,
            mig_enabled=mig_enabled,
            mig_offers=self._cutter.offers(uuid, index, known),
            vendor="nvidia",
            processes=self._processes((handle, *handles)),
            used_bytes=memory.used if memory else None,
            free_bytes=memory.free if memory else None,
            least_share_bytes=least_share_bytes(None),
            problem=unreadable or health.problem,
            health=health,
        )

    def _make(self, handle: Any, uuid: str) -> _Make:
        """What never changes of a GPU; the driver is queried until all of it is
        known.
        """
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
        by_generation = _CORES_PER_MULTIPROCESSOR.get(capability[0], 0)
        each = _CORES_PER_MULTIPROCESSOR.get(capability) or by_generation
        return int(cores // each) if each else 0

    def _processes(self, handles: Iterable[Any]) -> tuple[ProcessUse, ...] | None:
        """Who holds memory through any of the handles, None where no list can be read;
        a MIG instance's processes may show on the GPU's list too.
        """
        lists = [processes_if_known(self._nvml, handle) for handle in handles]
        if all(listed is None for listed in lists):
            return None
        memory: dict[int, int | None] = {}
        for listed in lists:
            for pid, held in (listed or {}).items():
                known = [size for size in (memory.get(pid), held) if size is not None]
                memory[pid] = max(known, default=None)
        return tuple(
            ProcessUse(pid=p, memory_bytes=m, name=self._process_name(p))
            for p, m in sorted(memory.items())
        )

    def _process_name(self, pid: int) -> str:
        # The program alone: its arguments may be private to its user.
        command = str(self._nvml.query("nvmlSystemGetProcessName", pid, default=""))
        path = command.split(" ")[0]
        return path.rsplit("/", 1)[-1]
