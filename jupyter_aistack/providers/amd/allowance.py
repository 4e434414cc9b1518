"""Which AMD GPUs the launcher of this process may use: what it was shown, and what its
device files and control groups let it open. No other is ever granted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jupyter_aistack.core.model.device import Device
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.visible_list import visible_positions
from jupyter_aistack.system.device_files import DeviceFiles
from jupyter_aistack.system.launcher import Launcher, launcher

from .amdsmi import AMDSMI

MAJOR = 226
"""The major number of ``/dev/dri/renderD128`` and on."""


class AMDAllowance:
    """Leaves out the GPUs that the launcher may not use. What its lists mean is found
    out once.

    ROCm's lowest layer shows what ``ROCR_VISIBLE_DEVICES`` names; HIP numbers anew what
    is left, and shows what ``HIP_VISIBLE_DEVICES`` names of it, or without that
    ``CUDA_VISIBLE_DEVICES``. ``GPU_DEVICE_ORDINAL`` is OpenCL's; a launcher that sets
    that alone means all the same.

    Args:
        smi: the connection to the library.
        find_launcher: finds the process that says what may be granted.
        files: tells which device files may be opened.
    """

    def __init__(
        self,
        smi: AMDSMI,
        *,
        find_launcher: Callable[[], Launcher] = launcher,
        files: DeviceFiles | None = None,
    ) -> None:
        self._smi = smi
        self._find_launcher = find_launcher
        self._files = files or DeviceFiles()
        self._environment: Mapping[str, str] | None = None
        self._chosen: frozenset[str] | None = None
        self._opened: set[str] = set()
        self.text = ""
        """The GPUs that may be granted, where those are not all."""

    def narrowed(
        self, devices: Sequence[Device], handles: Mapping[str, Any]
    ) -> list[Device]:
        """Those of the GPUs that may be granted.

        Args:
            devices: all of them, in the library's order.
            handles: the library's, by id; a GPU that does not answer has none.
        """
        infos = {i: self._enumeration(handle) for i, handle in handles.items()}
        reachable = self._reachable(devices, infos)
        if self._environment is None:
            self._environment = self._find_launcher().environment
        lists = _lists(self._environment)
        allowed = reachable
        if lists:
            if self._chosen is None or any(d.id not in handles for d in reachable):
                self._chosen = _choice(lists, _in_order(reachable, infos))
            chosen = self._chosen
            allowed = [device for device in reachable if device.id in chosen]
        names = ",".join(sorted(device.id for device in allowed))
        self.text = "" if allowed == list(devices) else names or "no AMD GPU"
        return allowed

    def _reachable(
        self, devices: Sequence[Device], infos: Mapping[str, Mapping[str, Any]]
    ) -> list[Device]:
        """The GPUs that may be opened; all of them where none may, as then it is no
        choice of a launcher's but a want of rights.
        """
        closed = {i for i, info in infos.items() if not self._may_open(i, info)}
        return [device for device in devices if device.id not in closed] or list(
            devices
        )

    def _may_open(self, device_id: str, info: Mapping[str, Any]) -> bool:
        minor = info.get("drm_render")
        if device_id in self._opened or not isinstance(minor, int) or not minor:
            return True
        may = self._files.may_open(f"dri/renderD{minor}", MAJOR, minor)
        if may:
            self._opened.add(device_id)
        is_missing = may is None and self._files.has("dri/renderD[0-9]*")
        return may is not False and not is_missing

    def _enumeration(self, handle: Any) -> Mapping[str, Any]:
        ask = "amdsmi_get_gpu_enumeration_info"
        try:
            info: Mapping[str, Any] = self._smi.query(ask, handle, default={})
        except ProviderError:
            return {}
        return info


def _lists(environment: Mapping[str, str]) -> list[str]:
    """The launcher's lists, each of what the one before leaves."""
    names = ["ROCR_VISIBLE_DEVICES"]
    is_hip = "HIP_VISIBLE_DEVICES" in environment
    names.append("HIP_VISIBLE_DEVICES" if is_hip else "CUDA_VISIBLE_DEVICES")
    lists = [environment[name] for name in names if name in environment]
    # Batch systems set it beside the others with the same numbers, which are of all
    # GPUs: numbered anew they would name none.
    if not lists and "GPU_DEVICE_ORDINAL" in environment:
        lists.append(environment["GPU_DEVICE_ORDINAL"])
    return lists


def _choice(lists: Sequence[str], ordered: Sequence[Device]) -> frozenset[str]:
    left: Collection[Device] = ordered
    for text in lists:
        known = list(left)
        shown = visible_positions(text, [[d.id] for d in known], may_mix=True)
        left = [known[position] for position in shown]
    return frozenset(device.id for device in left)


def _in_order(
    devices: Sequence[Device], infos: Mapping[str, Mapping[str, Any]]
) -> list[Device]:
    """The GPUs as HIP numbers them, where the library tells; else in its own order."""
    numbers = [infos.get(device.id, {}).get("hip_id") for device in devices]
    known = [number for number in numbers if isinstance(number, int)]
    if len(set(known)) < len(devices):
        return list(devices)
    pairs = sorted(zip(known, devices, strict=True), key=lambda pair: pair[0])
    return [device for _, device in pairs]
