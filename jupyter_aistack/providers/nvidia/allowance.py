"""Which GPUs the launcher of this process may use: what it was shown, and what its
device files and control groups let it open. No other is ever granted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from jupyter_aistack.core.model.device import Device, MIGInstance
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.visible_list import has_ordinals, visible_positions
from jupyter_aistack.system.device_files import DeviceFiles
from jupyter_aistack.system.launcher import Launcher, launcher

from .device_order import cuda_order
from .nvml import NOT_ALLOWED, NVML

CONTROL_FILES = (
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
)
"""The driver's own device files, which show no GPU by themselves."""
MAJOR = 195
"""The major number of NVIDIA's device files, ``/dev/nvidia0`` and on."""
VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_NAMELESS = "GPU-unknown-"


class GPUAllowance:
    """Leaves out the GPUs that the launcher may not use.

    What its list means is found out once: a GPU that falls off the bus later must not
    shift the numbers to another.

    Args:
        nvml: the connection to the driver.
        find_launcher: finds the process that says what may be granted.
        files: tells which device files may be opened.
        order: CUDA's order of the GPUs.
    """

    def __init__(
        self,
        nvml: NVML,
        *,
        find_launcher: Callable[[], Launcher] = launcher,
        files: DeviceFiles | None = None,
        order: Callable[[Mapping[str, str]], tuple[str, ...] | None] = cuda_order,
    ) -> None:
        self._nvml = nvml
        self._find_launcher = find_launcher
        self._files = files or DeviceFiles()
        self._order = order
        self._launcher: Launcher | None = None
        self._chosen: frozenset[str] | None = None
        self._uuids: tuple[str, ...] | None = None
        self._opened: set[str] = set()
        self._minors: dict[str, int | None] = {}
        self.text = ""
        """The GPUs and MIG instances that may be granted, where that is not all."""

    def narrowed(
        self, devices: Sequence[Device], refused: Collection[str]
    ) -> list[Device]:
        """Those of the GPUs, in the order of the driver, that may be granted; of one
        that is cut, those of its instances.

        Args:
            devices: all of them.
            refused: ids of those that the driver does not let this user open.

        Raises:
            ProviderError: what the launcher was allowed cannot be found out.
        """
        reachable = self._reachable(devices, refused)
        self._launcher = self._launcher or self._find_launcher()
        text = self._launcher.environment.get(VARIABLE)
        allowed = reachable
        if text is not None:
            chosen = self._choice(text, reachable, self._launcher.environment)
            allowed = _of_choice(reachable, chosen)
        self.text = "" if allowed == list(devices) else _text(allowed)
        return allowed

    # -- device files ------------------------------------------------------------------

    def _reachable(
        self, devices: Sequence[Device], refused: Collection[str]
    ) -> list[Device]:
        """The GPUs that may be opened; where none may, all of them, each with that
        problem: it is no choice of a launcher's but a want of rights.
        """
        opened = {device.id: self._may_open(device) for device in devices}
        closed = frozenset(i for i, may in opened.items() if may is False) | {*refused}
        reachable = [device for device in devices if device.id not in closed]
        if reachable or not devices:
            return reachable
        return [
            replace(device, problem=device.problem or NOT_ALLOWED) for device in devices
        ]

    def _may_open(self, device: Device) -> bool | None:
        """Whether a GPU's file may be opened; None where that is unknown. One that could
        be opened once stays: its file goes when it falls off the bus.
        """
        if device.id in self._opened:
            return True
        minor = self.minor(device)
        if minor is None:
            return None
        may = self._files.may_open(f"nvidia{minor}", MAJOR, minor)
        if may:
            self._opened.add(device.id)
        is_missing = may is None and self._files.has("nvidia[0-9]*")
        return False if is_missing else may  # others have files: it was not given

    def minor(self, device: Device) -> int | None:
        """The number of a GPU's file, which stays the same; None while it is unknown."""
        if device.id.startswith(_NAMELESS):
            return None
        if self._minors.get(device.id) is None:
            self._minors[device.id] = self._ask_minor(device)
        return self._minors[device.id]

    def _ask_minor(self, device: Device) -> int | None:
        try:
            handle = self._nvml.query("nvmlDeviceGetHandleByUUID", device.id)
            minor = self._nvml.query("nvmlDeviceGetMinorNumber", handle, default=None)
        except ProviderError:
            return None
        return None if minor is None else int(minor)

    # -- the launcher's list -----------------------------------------------------------

    def _choice(
        self, text: str, devices: Sequence[Device], environment: Mapping[str, str]
    ) -> frozenset[str]:
        """UUIDs of the GPUs and MIG instances that a list shows."""
        if self._chosen is not None:
            return self._chosen
        if text.strip().upper().startswith("MIG-"):
            named = _instances(devices)
            pairs = [[uuid, *self._paths(uuid, gpu)] for uuid, gpu in named]
            shown = visible_positions(text, pairs)
            chosen = frozenset(named[position][0] for position in shown)
        else:
            ordered = self._ordered(text, devices, environment)
            shown = visible_positions(text, [[device.id] for device in ordered])
            chosen = frozenset(ordered[position].id for position in shown)
        # One that has not told its name yet will have another: it is looked at again.
        if not any(device.id.startswith(_NAMELESS) for device in devices):
            self._chosen = chosen
        return chosen

    def _ordered(
        self, text: str, devices: Sequence[Device], environment: Mapping[str, str]
    ) -> list[Device]:
        """The GPUs as CUDA numbers them for the launcher."""
        is_by_bus = environment.get(ORDER, "").upper() == "PCI_BUS_ID"
        if is_by_bus or not has_ordinals(text) or len(devices) < 2:
            return list(devices)
        if self._uuids is None:
            self._uuids = self._order(environment) or ()
        known = _in_order(devices, self._uuids)
        if len(known) == len(devices):
            return known
        if len({device.name for device in devices}) == 1:
            return list(devices)
        raise ProviderError(
            f"{VARIABLE}={text} numbers GPUs of different models, and CUDA does not say "
            f"in which order; set {ORDER}=PCI_BUS_ID, or name them by UUID"
        )

    def _paths(self, uuid: str, gpu: str) -> list[str]:
        """The older names of a MIG instance: ``MIG-GPU-<uuid>/<gi>/<ci>``."""
        try:
            handle = self._nvml.query("nvmlDeviceGetHandleByUUID", uuid)
            numbers = [
                self._nvml.query(function, handle)
                for function in (
                    "nvmlDeviceGetGpuInstanceId",
                    "nvmlDeviceGetComputeInstanceId",
                )
            ]
        except ProviderError:
            return []
        return [f"MIG-{gpu}/{'/'.join(map(str, numbers))}"]


def _instances(devices: Sequence[Device]) -> list[tuple[str, str]]:
    """UUIDs of all instances, each with that of its GPU."""
    return [(part.uuid, device.id) for device in devices for part in device.mig]


def _in_order(devices: Sequence[Device], uuids: Sequence[str]) -> list[Device]:
    """The devices in the order of these UUIDs; CUDA shows one that is cut by one of its
    instances.
    """
    by_uuid = {
        name.partition("-")[2].lower(): device
        for device in devices
        for name in (device.id, *(part.uuid for part in device.mig))
    }
    return [by_uuid[uuid.lower()] for uuid in uuids if uuid.lower() in by_uuid]


def _of_choice(devices: Sequence[Device], chosen: frozenset[str]) -> list[Device]:
    """The devices that are chosen, and those with a chosen instance, with these alone."""
    allowed = []
    for device in devices:
        parts = tuple(part for part in device.mig if part.uuid in chosen)
        if device.id in chosen:
            allowed.append(device)
        elif parts:
            allowed.append(_cut_down(device, parts))
    return allowed


def _text(allowed: Sequence[Device]) -> str:
    uuids = (part.uuid for device in allowed for part in device.mig)
    return ",".join(sorted({*uuids, *(device.id for device in allowed)})) or "no GPU"


def _cut_down(device: Device, parts: tuple[MIGInstance, ...]) -> Device:
    """A GPU of which some instances alone may be used: nothing is created on it."""
    return replace(device, mig=parts, mig_offers=())
