"""What the host around a driver tells of it: a container, the Windows Subsystem for
Linux, a Jetson; and what to do where the driver's library is not what it should be.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

_MODULE = re.compile(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s")
_CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES=compute,utility"


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The host, by its files.

    Attributes:
        root: where its files are.
    """

    root: Path = Path("/")

    @property
    def is_wsl(self) -> bool:
        """Whether this is the Windows Subsystem for Linux."""
        return "microsoft" in self._text("proc/sys/kernel/osrelease").lower()

    @property
    def has_smi(self) -> bool:
        """Whether the commands that people are told to run can be run here."""
        return shutil.which("nvidia-smi") is not None

    @property
    def module_version(self) -> str:
        """The version of the kernel module that is loaded; empty where none says."""
        match = _MODULE.search(self._text("proc/driver/nvidia/version"))
        return match[1] if match else ""

    def without_library(self) -> str:
        """What to do where ``libnvidia-ml.so.1`` cannot be loaded and yet there is a
        GPU; empty where nothing speaks of a GPU.
        """
        if self.is_wsl and self._has("dev/dxg"):
            return (
                "the NVIDIA driver's library is not found in WSL; it is libnvidia-ml.so.1"
                " in /usr/lib/wsl/lib, which ldconfig or LD_LIBRARY_PATH must name"
            )
        if self._has("etc/nv_tegra_release"):
            return (
                "this Jetson's software has no NVML (libnvidia-ml.so.1), by which GPUs"
                " are known here; JetPack 6 and later bring it"
            )
        if self._has("dev/nvidiactl") or self.module_version:
            return (
                "there is an NVIDIA GPU, but not the driver's library libnvidia-ml.so.1;"
                f" a container gets it by {_CAPABILITIES}, a host by the driver's packages"
            )
        return ""

    def mismatch(self) -> str:
        """What to do where library and kernel module are of different versions."""
        version = self.module_version
        loaded = f" (its version is {version})" if version else ""
        return (
            "the NVIDIA library and the kernel module that is loaded"
            f"{loaded} do not belong together; after an update reboot or reload the"
            " module, and mount the host's own libraries into a container"
        )

    def _has(self, path: str) -> bool:
        return (self.root / path).exists()

    def _text(self, path: str) -> str:
        try:
            return (self.root / path).read_text()
        except OSError:
            return ""
