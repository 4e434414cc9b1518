"""Finding out how firmly each GPU's shares can be held: what `highest_level` judges by,
gathered once a minute.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jupyter_aistack.core.model.device import Device, Enforcement
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.nvidia.dmem.groups import ROOT
from jupyter_aistack.providers.nvidia.mps.control import PROGRAM
from jupyter_aistack.providers.nvidia.mps.foreign_daemons import foreign_daemon

from . import mig
from .dmem import DmemClient
from .levels import (
    ComputeMode,
    EnforcementOption,
    HostCapabilities,
    Virtualization,
    highest_level,
    major,
)
from .mps import MPSManager
from .mps.limits import NAMESPACES_DRIVER
from .nvml import NVML
from .surroundings import Surroundings

PROBE_SECONDS = 60.0
PROGRAM_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class _Host:
    """The facts that are the same for all GPUs; the fields are those of
    `HostCapabilities`.
    """

    driver: str
    refusal: str
    control: str
    protocols: frozenset[int]
    foreign: str
    helper: str
    cgroup: str
    capacity: str


@dataclass(frozen=True, kw_only=True)
class _Own:
    """The facts of one GPU that hardly ever change."""

    capability: tuple[int, int]
    compute_mode: ComputeMode | None
    has_mig: bool
    bus: str
    virtualization: Virtualization | None


class CapabilityProbe:
    """Gathers the facts.

    Args:
        nvml: the connection to the driver.
        mps: knows which daemons are ours, and where a daemon could not be started.
        dmem: the root helper.
        refusal: why no share is to be held by MPS at all; empty for no reason.
        cgroups: where control groups are mounted.
        surroundings: the host.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        nvml: NVML,
        mps: MPSManager,
        dmem: DmemClient,
        *,
        refusal: str = "",
        cgroups: Path = ROOT,
        surroundings: Surroundings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._nvml = nvml
        self._mps = mps
        self._dmem = dmem
        self._refusal = refusal
        self._cgroups = cgroups
        self._surroundings = surroundings or Surroundings()
        self._clock = clock
        self._host: _Host | None = None
        self._own: dict[str, _Own] = {}
        self._at = 0.0

    def forget(self) -> None:
        """Look anew next time: the driver has been opened again."""
        self._host = None

    @property
    def driver(self) -> int:
        """The driver's major version; 0 when unknown."""
        return major(self._probed().driver)

    def capability(self, device: Device) -> tuple[int, ...]:
        """Compute capability of a GPU whose level was asked for; (0, 0) when
        unknown.
        """
        own = self._own.get(device.id)
        return own.capability if own is not None else (0, 0)

    def rung(self, device: Device) -> EnforcementOption:
        """Where a healthy GPU stands now. Raises `ProviderError`: the driver does not
        answer.
        """
        host = self._probed()
        if device.id not in self._own:
            self._own[device.id] = self._ask(device)
        own = self._own[device.id]
        held = [
            mig.enforcement(instance.gpu_slices, instance.compute_slices)
            for instance in device.mig
        ]
        whole = held.count(Enforcement.L4)
        return highest_level(
            HostCapabilities(
                index=device.index,
                mig=device.mig_enabled if own.has_mig else None,
                instances=whole,
                parts=len(device.mig) - whole,
                driver=host.driver,
                capability=own.capability,
                compute_mode=own.compute_mode,
                refusal=host.refusal,
                control=host.control,
                protocols=host.protocols,
                foreign=host.foreign,
                failure=self._mps.failure(device.id),
                namespaces_failure=self._mps.failure(device.id, 3),
                cgroup=host.cgroup or _unlimited(own.bus, host.capacity),
                helper=host.helper,
                virtualization=own.virtualization,
                lists_processes=device.processes is not None,
                has_own_memory=not _is_hosts(device),
                has_smi=self._surroundings.has_smi,
            )
        )

    def _probed(self) -> _Host:
        is_old = not 0 <= self._clock() - self._at < PROBE_SECONDS
        if self._host is None or is_old:
            self._host = self._look()
            self._own = {}
            self._at = self._clock()
        return self._host

    def _look(self) -> _Host:
        driver = str(self._nvml.query("nvmlSystemGetDriverVersion", default=""))
        control = shutil.which(PROGRAM) or ""
        protocols = known_protocols(control) if control else frozenset[int]()
        can_have_groups = 3 in protocols and major(driver) >= NAMESPACES_DRIVER
        return _Host(
            driver=driver,
            refusal=self.refusal(),
            control=control,
            protocols=protocols,
            foreign=foreign_daemon(self._mps.own_pids()) if control else "",
            helper=self._dmem.refusal() if can_have_groups else "",
            cgroup=_no_groups(self._cgroups),
            capacity=_text(self._cgroups / "dmem.capacity"),
        )

    def refusal(self) -> str:
        """Why no MPS daemon may be started on this host at all; empty for no reason."""
        if self._refusal:
            return self._refusal
        if not sys.platform.startswith("linux"):
            return "MPS needs Linux"
        if self._surroundings.is_wsl:
            return "there is no MPS in the Windows Subsystem for Linux (WSL)"
        try:
            self._mps.root()
        except ProviderError as error:
            return error.message
        return ""

    def _ask(self, device: Device) -> _Own:
        ask = self._nvml.query
        handle = ask("nvmlDeviceGetHandleByUUID", device.id)
        mode = ask("nvmlDeviceGetComputeMode", handle, default=None)
        virtual = ask("nvmlDeviceGetVirtualizationMode", handle, default=None)
        pci = ask("nvmlDeviceGetPciInfo_v3", handle, default=None)
        return _Own(
            capability=tuple(
                ask("nvmlDeviceGetCudaComputeCapability", handle, default=(0, 0))
            ),
            compute_mode=ComputeMode(mode) if mode in set(ComputeMode) else None,
            has_mig=device.mig_enabled
            or ask("nvmlDeviceGetMigMode", handle, default=None) is not None,
            bus=_decoded(pci.busId) if pci is not None else "",
            virtualization=Virtualization(virtual)
            if virtual in set(Virtualization)
            else None,
        )


def _is_hosts(device: Device) -> bool:
    """Whether a GPU works in the host's memory: what is free there is known, and not
    what the GPU has in use.
    """
    return device.used_bytes is None and device.free_bytes is not None


def known_protocols(control: str) -> frozenset[int]:
    """Versions of the protocol that a control program speaks, as its help tells; none
    when it cannot be run.
    """
    try:
        if "namespace" in _said(control, "-p", "3", "-h"):
            return frozenset({2, 3})
        _said(control, "-v")
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    return frozenset({2})


def _said(control: str, *arguments: str) -> str:
    # Its help must not depend on a daemon that happens to run where ours never will.
    environment = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": os.devnull}
    options: dict[str, object] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
    }
    done = subprocess.run(  # type: ignore[call-overload]
        [control, *arguments],
        text=True,
        timeout=PROGRAM_SECONDS,
        env=environment,
        **options,
    )
    return str(done.stdout)


def _no_groups(root: Path) -> str:
    if (root / "cgroup.controllers").exists():
        return ""
    return f"control groups v2 are not mounted at {root}"


def _unlimited(bus: str, capacity: str) -> str:
    """Why the kernel cannot limit a GPU's memory by control group."""
    if bus and f"nvidia/{bus}/vidmem " in capacity.lower():
        return ""
    return "the kernel has no dmem controller for this GPU (no line in dmem.capacity); it needs Linux 6.14 or newer"


def _decoded(text: str | bytes) -> str:
    return (text.decode() if isinstance(text, bytes) else text).lower()


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
