"""NVIDIA GPUs: whole GPUs, MIG instances that an administrator cut, and shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from jupyter_aistack.core.enforcement.limit_effect import LimitEffect
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import (
    Device,
    Enforcement,
    Fault,
    SliceKind,
)
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample
from jupyter_aistack.core.placement.mig_plan import MIGPermission, MIGPlan
from jupyter_aistack.exceptions import DriverNotFound, ProviderError
from jupyter_aistack.providers.base import Provider, ProviderOptions
from jupyter_aistack.system.users import is_root

from .allowance import CONTROL_FILES, GPUAllowance
from .discovery import GPUDiscovery
from .enforcement import SERVER, ShareEnforcer
from .memory_caps import for_suspension
from .mig_reconfigure import MIGReconfigurer
from .mps import MPSManager
from .mps.control import PROGRAM
from .mps.paths import runtime_root
from .mps.users import shared_root
from .nvml import NVML
from .sampler import GPUSampler
from .slices import (
    framework_caps,
    gpu_slices,
    usable_slices,
    visible_memory,
    weakest_level,
)
from .version import driver_version
from .visibility import VISIBILITY


class GPUProvider(Provider):
    """The host's NVIDIA GPUs, as the driver describes them.

    Args:
        nvml: the connection to the driver.
        optional: a host without a driver is not a problem, it just has no GPU.
        mig_create: which MIG instances may be created for requests that wait; None
            for none.
        clock: seconds since the epoch, as the driver stamps its samples.
        sharing: what holds shares to their size.
        allowance: which GPUs the launcher of this process may use.
    """

    name = "gpu"
    order = 10
    visibility = VISIBILITY
    services = frozenset({PROGRAM, SERVER, "nvidia-persistenced"})

    def __init__(
        self,
        nvml: NVML | None = None,
        *,
        optional: bool = False,
        mig_create: MIGPermission | None = None,
        clock: Callable[[], float] = time.time,
        sharing: ShareEnforcer | None = None,
        allowance: GPUAllowance | None = None,
    ) -> None:
        self._nvml = nvml or NVML()
        self._cutter = MIGReconfigurer(self._nvml, mig_create)
        self._sharing = sharing or ShareEnforcer(self._nvml, clock=clock)
        self._allowance = allowance or GPUAllowance(self._nvml)
        self._allowed: tuple[Device, ...] = ()
        self._optional = optional
        self._clock = clock
        self._sampler = GPUSampler(self._nvml, self._sharing.servers_among)
        self._discovery = GPUDiscovery(
            self._nvml, self._cutter, clock, on_reopen=self._sharing.prober.forget
        )

    @classmethod
    def build(cls, options: ProviderOptions) -> GPUProvider:
        nvml = NVML()
        is_for_all = options.serves_host and is_root()
        root = shared_root if is_for_all else runtime_root
        enforcer = ShareEnforcer(
            nvml,
            is_advisory=options.is_advisory,
            mps=MPSManager(root=root, strict=options.mps_strict),
            serves_host=options.serves_host,
            users_share=options.users_share,
        )
        return cls(
            nvml,
            optional=options.is_optional,
            sharing=enforcer,
            mig_create=options.mig_create,
        )

    def discover(self, host: str) -> tuple[Device, ...]:
        """Every GPU that the launcher of this process may use, unusable GPUs with their
        problem; a GPU seen before that is gone stays listed as lost.
        """
        try:
            devices = self._allowance.narrowed(
                self._discovery.discover(host), self._discovery.refused
            )
        except DriverNotFound as error:
            if self._optional and error.facts.get("library_missing"):
                return ()
            raise
        self._allowed = tuple(self._sharing.visible_level(device) for device in devices)
        return self._allowed

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        """CUDA_VISIBLE_DEVICES by UUID, what holds a share to its size, and caps for
        the frameworks.
        """
        # A GPU that MPS had closed may stand open again: the process that is to start
        # may be what was waited for.
        devices = {i: self._sharing.reopened(device) for i, device in devices.items()}
        slices = usable_slices(lease, devices)
        handle = self._sharing.enforce(lease, slices, devices)
        visible = [slice_.uuid for slice_ in slices]
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
                **framework_caps(slices, devices, handle.level or Enforcement.L0),
                **handle.environment,
                **for_suspension(lease),
            },
            memory_limit_bytes=sum(slice_.memory_bytes for slice_ in slices),
            enforced_by=handle.level or weakest_level(slices),
            expects=replace(
                handle.expects,
                visible=tuple(visible),
                memory_total=visible_memory(slices, devices),
            ),
            conditions=handle.conditions,
        )

    def unprepare(self, lease: Lease) -> None:
        """Take the lease's namespace, daemon and control group away."""
        ids = [slice_.device_id for slice_ in gpu_slices(lease)]
        self._sharing.release(lease, [(i, self._index(i)) for i in ids])

    def device_files(
        self, lease: Lease, devices: Mapping[str, Device]
    ) -> tuple[str, ...] | None:
        """Those of its GPUs and of the driver; not known of MIG instances, whose files
        are those of all instances of a GPU.
        """
        own = [each for each in lease.slices if each.kind is not SliceKind.CPU]
        gpus = [devices.get(each.device_id) for each in own]
        minors = [None if gpu is None else self._allowance.minor(gpu) for gpu in gpus]
        is_cut = any(each.kind is SliceKind.MIG for each in own)
        if is_cut or None in minors:
            return None
        return (*(f"/dev/nvidia{minor}" for minor in minors), *CONTROL_FILES)

    def enter(self, lease: Lease, pid: int) -> None:
        """Move a process into the lease's control group, where the lease has a group."""
        self._sharing.enter(lease, pid)

    def adjust(
        self, lease: Lease, devices: Mapping[str, Device], pids: Collection[int]
    ) -> LimitEffect:
        """Set the limits at what holds the lease."""
        return self._sharing.adjust(lease, usable_slices(lease, devices), devices)

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

    @property
    def allowance(self) -> str:
        return self._allowance.text

    def driver_version(self) -> str:
        return driver_version()

    def faults(self) -> tuple[Fault, ...]:
        """Faults of MPS servers."""
        return self._sharing.faults()

    def restore_faults(self, faults: Sequence[DeviceFault]) -> None:
        """Take over the Xid errors that are written down: they are told once."""
        self._discovery.restore_faults(faults)

    def _device_of(self, lease: Lease) -> Device | None:
        """The GPU of a lease that MPS may hold."""
        known = self._discovery.known
        return next((known.get(s.device_id) for s in gpu_slices(lease)), None)

    def _index(self, device_id: str) -> int:
        known = self._discovery.known.get(device_id)
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
            for slice_ in gpu_slices(lease):
                uuids.setdefault(slice_.device_id, set()).add(slice_.uuid)
        return self._sampler.sample(devices, uuids, self._clock(), since)

    def plan_room(
        self,
        wanted: Sequence[str],
        leased: Mapping[str, str],
        drained: Collection[str] = (),
    ) -> MIGPlan:
        """Which MIG instances to create, and which unused instances to destroy."""
        return self._cutter.plan(self._cuttable(drained), wanted, leased)

    def make_room(
        self,
        wanted: Sequence[str],
        leased: Mapping[str, str],
        drained: Collection[str] = (),
    ) -> tuple[str, ...]:
        """Create them, where the administrator allows it."""
        return self._cutter.make(self._cuttable(drained), wanted, leased)

    def _cuttable(self, drained: Collection[str]) -> list[Device]:
        """The GPUs that the launcher may use as a whole and that are not drained: what
        it may use instances of is not its own to cut.
        """
        known = self._discovery.known
        open_ = [device for device in self._allowed if device.id not in drained]
        return [
            device
            for device in open_
            if device.id in known and len(device.mig) == len(known[device.id].mig)
        ]

    def close(self) -> None:
        """Close NVML. MPS daemons that hold leases go on."""
        self._sharing.close()
        self._nvml.close()
