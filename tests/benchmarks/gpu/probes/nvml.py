"""NVML by hand, on the first GPU."""

from __future__ import annotations

import time
from typing import Any

from jupyter_aistack.core.model.units import MIB

LISTS = {
    "compute": "nvmlDeviceGetComputeRunningProcesses_v3",
    "mps": "nvmlDeviceGetMPSComputeRunningProcesses_v3",
}


class Nvml:
    """The driver's management library and a handle of the first GPU.

    Raises:
        Exception: whatever it says where there is none.
    """

    def __init__(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self.library: Any = pynvml
        self.handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def ask(self, name: str, *arguments: Any) -> Any:
        """What a call about the GPU answers; its error in words where it fails."""
        try:
            return getattr(self.library, name)(self.handle, *arguments)
        except self.library.NVMLError as error:
            return str(error)

    def used_mib(self) -> int:
        """Memory in use, whoever uses it."""
        return int(self.library.nvmlDeviceGetMemoryInfo(self.handle).used) // MIB

    def processes(self) -> dict[str, Any]:
        """Mebibytes by process in each list; None where it does not say how many."""
        return {kind: self._listed(name) for kind, name in LISTS.items()}

    def _listed(self, name: str) -> Any:
        listed = self.ask(name)
        if isinstance(listed, str):
            return listed
        return {
            each.pid: None if each.usedGpuMemory is None else each.usedGpuMemory // MIB
            for each in listed
        }

    def listed(self, pid: int) -> dict[str, Any]:
        """What each list says of one process."""
        return {
            kind: pids.get(pid, "not listed") if isinstance(pids, dict) else pids
            for kind, pids in self.processes().items()
        }

    def samples(self, seconds: float = 2.5) -> Any:
        """Process, age in seconds, use of multiprocessors and memory, of the last
        seconds.
        """
        now = time.time()
        samples = self.ask(
            "nvmlDeviceGetProcessUtilization", int((now - seconds) * 1e6)
        )
        if isinstance(samples, str):
            return samples
        return [
            (each.pid, round(now - each.timeStamp / 1e6, 2), each.smUtil, each.memUtil)
            for each in samples
        ]


def why_no_gpu() -> str:
    """Why there is nothing to probe; empty when there is. It asks the driver alone: the
    package may be what fails.
    """
    try:
        import pynvml
    except ImportError:
        return "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError as error:
        return f"there is no GPU on this machine ({error})"
    return "" if count else "there is no GPU on this machine"
