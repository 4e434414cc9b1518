"""At which level a GPU's shares can be enforced: from what is known of the GPU and its
host to a level, and why not a higher level.

The levels, highest first: L4, MIG instances; L3, an MPS namespace and a control group
for each lease; L2, the namespace alone; L1, an MPS daemon for each GPU and limits in the clients' environment; L0,
framework caps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from jupyter_aistack.core.model.device import Enforcement

from .mps.limits import LIMITS_DRIVER, NAMESPACES_DRIVER

VOLTA = (7, 0)
"""First compute capability whose MPS knows limits (NVIDIA MPS documentation)."""


OF_HYPERVISOR = "is given to virtual machines by this host (vGPU), and works for no process of the host itself"
VGPU = (
    "it is a virtual GPU (vGPU): its memory is its own, its multiprocessors are shared"
    " in time with other machines, whose work shows in no figure here"
)
HOST_MEMORY = "it works in the host's memory, which other programs use too, and shares are parts of that"
NO_LIST = (
    "its driver lists no processes (as under WSL): what others hold is known as a sum"
    " alone, what a lease uses is not known, and no bound of memory is watched"
)


class ComputeMode(IntEnum):
    """NVML's ``nvmlComputeMode_t``."""

    DEFAULT = 0
    PROHIBITED = 2
    EXCLUSIVE_PROCESS = 3


class Virtualization(IntEnum):
    """NVML's ``nvmlGpuVirtualizationMode_t``."""

    NONE = 0
    PASSTHROUGH = 1
    VGPU = 2
    HOST_VGPU = 3
    HOST_VSGA = 4


@dataclass(frozen=True, kw_only=True)
class HostCapabilities:
    """What the level of one GPU depends on.

    Attributes:
        index: its number on the host, for commands shown to people.
        mig: whether MIG mode is on; None when the GPU knows no MIG.
        instances: MIG instances that exist and have memory of their own.
        parts: those that share their memory with others (compute instances).
        driver: the driver's version, e.g. ``615.71.09``; empty when it does not say.
        capability: compute capability; (0, 0) when unknown.
        compute_mode: None when unknown.
        refusal: why no MPS daemon may be started on this host at all; empty for no
            reason.
        control: path of ``nvidia-cuda-mps-control``; empty where there is none.
        protocols: versions of its protocol that it speaks.
        foreign: another MPS daemon of this host, for people (``process 4711``); empty
            for none.
        failure: why MPS could not be started on this GPU a moment ago; empty for no
            reason.
        namespaces_failure: why it could not be started with namespaces; likewise.
        cgroup: why the host's control groups cannot limit memory of this GPU; empty
            when they can.
        helper: why the root helper cannot be used; empty when it answers.
        virtualization: how a virtual machine is concerned; None when unknown.
        lists_processes: whether the driver tells which processes use the GPU.
        has_own_memory: it does not work in the host's.
        has_smi: whether nvidia-smi can be run where the server runs.
    """

    index: int = 0
    mig: bool | None = None
    instances: int = 0
    parts: int = 0
    driver: str = ""
    capability: tuple[int, int] = (0, 0)
    compute_mode: ComputeMode | None = None
    refusal: str = ""
    control: str = ""
    protocols: frozenset[int] = frozenset()
    foreign: str = ""
    failure: str = ""
    namespaces_failure: str = ""
    cgroup: str = ""
    helper: str = ""
    virtualization: Virtualization | None = None
    lists_processes: bool = True
    has_own_memory: bool = True
    has_smi: bool = True


@dataclass(frozen=True, kw_only=True)
class EnforcementOption:
    """Where a GPU stands; the fields are those of `Device`."""

    level: Enforcement | None
    why_not: tuple[tuple[str, str], ...] = ()
    advice: str = ""
    problem: str = ""


def major(driver: str) -> int:
    """The driver's major version; 0 when `driver` is no version."""
    first = driver.partition(".")[0]
    return int(first) if first.isdecimal() else 0


def highest_level(facts: HostCapabilities) -> EnforcementOption:
    """The highest level that shares of a GPU reach, and why none above it is
    reached.
    """
    option = _with_mig(facts) if facts.mig else _without_mig(facts)
    notes = filter(None, [option.advice, *_notes(facts)])
    option = replace(option, advice="; ".join(notes))
    if facts.virtualization in _OF_HYPERVISORS:
        return replace(option, problem=OF_HYPERVISOR)
    if facts.compute_mode is ComputeMode.PROHIBITED:
        return replace(option, problem=_prohibited(facts))
    return option


def _notes(facts: HostCapabilities) -> Iterator[str]:
    """What follows from a driver that tells less than others do."""
    if facts.virtualization is Virtualization.VGPU:
        yield VGPU
    if not facts.has_own_memory:
        yield HOST_MEMORY
    if not facts.lists_processes:
        yield NO_LIST


def _without_mig(facts: HostCapabilities) -> EnforcementOption:
    without_mps = _no_mps(facts)
    without_namespaces = without_mps or _no_namespaces(facts)
    reasons = {
        Enforcement.L4: _no_mig(facts),
        Enforcement.L3: without_namespaces or _no_groups(facts),
        Enforcement.L2: without_namespaces,
        Enforcement.L1: without_mps,
    }
    level = next(
        (level for level, reason in reasons.items() if not reason), Enforcement.L0
    )
    above = tuple(
        (higher.value, why)
        for higher, why in reasons.items()
        if higher.value > level.value
    )
    return EnforcementOption(level=level, why_not=above, advice=_advice(facts, level))


def _with_mig(facts: HostCapabilities) -> EnforcementOption:
    if facts.instances:
        return EnforcementOption(level=Enforcement.L4)
    level = Enforcement.L0 if facts.parts else None
    reason = (
        "its instances are compute instances, and share their memory with each other"
        if facts.parts
        else "MIG mode is on but there is no instance; "
        f"create some with {_smi(facts, f'mig -i {facts.index} -cgi')}"
    )
    under_mps = (level for level in Enforcement if level.is_by_mps)
    whole_instances = "a GPU in MIG mode is granted by the instance"
    others = tuple((level.value, whole_instances) for level in under_mps)
    return EnforcementOption(
        level=level, why_not=((Enforcement.L4.value, reason), *others)
    )


_OF_HYPERVISORS = frozenset({Virtualization.HOST_VGPU, Virtualization.HOST_VSGA})


def _no_mig(facts: HostCapabilities) -> str:
    if facts.mig is None:
        return "this GPU has no MIG"
    return "MIG mode is off; only an administrator may change that"


def _no_mps(facts: HostCapabilities) -> str:
    """Why no MPS daemon can hold shares of the GPU."""
    if facts.refusal:
        return facts.refusal
    if not facts.control:
        return "nvidia-cuda-mps-control is not on the server's PATH; it comes with the driver's compute utilities"
    if 0 < major(facts.driver) < LIMITS_DRIVER:
        return f"MPS limits memory from driver {LIMITS_DRIVER} on, and this is {facts.driver}"
    if (0, 0) < facts.capability < VOLTA:
        capability = ".".join(map(str, facts.capability))
        return f"its compute capability is {capability}, and MPS holds limits from 7.0 (Volta) on"
    if facts.compute_mode is ComputeMode.PROHIBITED:
        return f"it {_prohibited(facts)}"
    if facts.foreign and facts.compute_mode is ComputeMode.EXCLUSIVE_PROCESS:
        return (
            f"another MPS daemon ({facts.foreign}) runs, and in compute mode EXCLUSIVE_PROCESS only one server may "
            "use the GPU; stop that daemon (echo quit | nvidia-cuda-mps-control), or leave the GPU to it"
        )
    return f"MPS could not be started: {facts.failure}" if facts.failure else ""


def _prohibited(facts: HostCapabilities) -> str:
    return (
        "is in compute mode PROHIBITED, in which no process can use it; "
        f"{_open(facts)}, opens it"
    )


def _smi(facts: HostCapabilities, arguments: str) -> str:
    """A command for people to run."""
    where = "" if facts.has_smi else " on the host (it is not on the server's PATH)"
    return f"nvidia-smi {arguments}, as root{where}"


def _open(facts: HostCapabilities) -> str:
    """The command that lets all processes use a GPU."""
    return _smi(facts, f"-i {facts.index} -c DEFAULT")


def _no_namespaces(facts: HostCapabilities) -> str:
    if major(facts.driver) < NAMESPACES_DRIVER:
        return f"MPS namespaces need driver {NAMESPACES_DRIVER} or newer, and this is {facts.driver or 'unknown'}"
    if 3 not in facts.protocols:
        return "nvidia-cuda-mps-control does not speak protocol 3; install the version that belongs to the driver"
    if facts.namespaces_failure:
        return f"MPS could not be started with namespaces: {facts.namespaces_failure}"
    return ""


def _no_groups(facts: HostCapabilities) -> str:
    return facts.cgroup or facts.helper


def _advice(facts: HostCapabilities, level: Enforcement) -> str:
    is_exclusive = facts.compute_mode is ComputeMode.EXCLUSIVE_PROCESS
    if level is Enforcement.L0 and is_exclusive:
        return (
            "its compute mode is EXCLUSIVE_PROCESS, in which one process at a time can "
            "use it without MPS: a kernel's own children find it busy; "
            f"{_open(facts)}, lets shares run side by side"
        )
    if not level.is_by_mps or facts.compute_mode is not ComputeMode.DEFAULT:
        return ""
    beside = (
        f"; processes of another MPS daemon ({facts.foreign}) are not held by it"
        if facts.foreign
        else ""
    )
    exclusive = _smi(facts, f"-i {facts.index} -c EXCLUSIVE_PROCESS")
    return (
        f"a process that loses its MPS directory has the whole GPU; {exclusive}, "
        f"makes that an error, where nothing but shares is granted on this GPU{beside}"
    )
