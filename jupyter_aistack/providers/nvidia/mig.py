"""MIG instances: the hardware partitions an administrator cut a GPU into, as NVML's
attributes describe them.

A profile's name is a name alone. ``1g.18gb`` of an H200 has 16 GiB, and what share of a
GPU's multiprocessors it has differs by model, so every figure comes from attributes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jupyter_aistack.core.model.device import Device, Enforcement, MIGInstance, Slice
from jupyter_aistack.core.model.spec import is_profile
from jupyter_aistack.core.model.units import MIB
from jupyter_aistack.core.placement.mig_plan import MIGProfile

from .nvml import NVML

PROFILES = range(0x12)
"""NVML's numbers of the kinds of GPU instances (``NVML_GPU_INSTANCE_PROFILE_COUNT``);
most GPUs know a few of them.
"""


def instance_handles(nvml: NVML, gpu: Any) -> tuple[Any, ...]:
    """Handles of a GPU's instances; the driver numbers them with holes."""
    most = nvml.query("nvmlDeviceGetMaxMigDeviceCount", gpu, default=0)
    slots = (
        nvml.query("nvmlDeviceGetMigDeviceHandleByIndex", gpu, slot, not_found=None)
        for slot in range(most)
    )
    return tuple(handle for handle in slots if handle is not None)


def shapes(nvml: NVML, gpu: Any, gpu_bytes: int) -> tuple[MIGProfile, ...]:
    """The kinds of instances a GPU can be cut into; none where the driver does not say.

    `gpu_bytes` is all memory of the GPU; 0 where this user may not read it.
    """
    infos = (_profile(nvml, gpu, number) for number in PROFILES)
    return tuple(_shape(info, gpu_bytes) for info in infos if info is not None)


def _profile(nvml: NVML, gpu: Any, number: int) -> Any:
    """NVML's description of one kind of instance, with its name where the driver is new
    enough to tell.
    """
    ask = "nvmlDeviceGetGpuInstanceProfileInfo"
    info = nvml.query(ask, gpu, number, default=None)
    return info if info is not None else nvml.query(ask, gpu, number, 1, default=None)


def _shape(info: Any, gpu_bytes: int) -> MIGProfile:
    raw = getattr(info, "name", "")
    text = raw.decode() if isinstance(raw, bytes) else raw
    name = text.rpartition(" ")[2].lower()
    memory_bytes = info.memorySizeMB * MIB
    return MIGProfile(
        id=info.id,
        name=name
        if is_profile(name)
        else profile_name(info.sliceCount, info.sliceCount, memory_bytes, gpu_bytes),
        gpu_slices=info.sliceCount,
        memory_bytes=memory_bytes,
        engines=(
            info.copyEngineCount,
            info.decoderCount,
            info.encoderCount,
            info.jpegCount,
            info.ofaCount,
        ),
    )


def describe(
    nvml: NVML, handle: Any, gpu_bytes: int, known: Sequence[MIGProfile] = ()
) -> MIGInstance:
    """The instance behind a handle.

    Args:
        nvml: the connection to the driver.
        handle: the instance.
        gpu_bytes: all memory of its GPU; 0 where this user may not read it.
        known: the shapes of its GPU, which have the driver's own names.
    """
    attributes = nvml.query("nvmlDeviceGetAttributes_v2", handle)
    whole = max(attributes.gpuInstanceSliceCount, 1)
    own = attributes.computeInstanceSliceCount or whole
    memory_bytes = attributes.memorySizeMB * MIB
    shape = _shape_of(attributes, known)
    if shape is not None:
        name = shape.name if own == whole else f"{own}c.{shape.name}"
    else:
        label = (
            ""
            if gpu_bytes
            else _label(nvml.query("nvmlDeviceGetName", handle, default=""))
        )
        name = label or profile_name(whole, own, memory_bytes, gpu_bytes)
    return MIGInstance(
        uuid=nvml.query("nvmlDeviceGetUUID", handle),
        profile=name,
        # Compute instances of one GPU instance share its memory; each is counted with
        # its part.
        memory_bytes=memory_bytes * own // whole,
        multiprocessors=attributes.multiprocessorCount,
        gpu_slices=whole,
        compute_slices=own,
    )


def _label(device_name: str) -> str:
    """The profile that the driver writes behind a GPU's model, the last resort where it
    tells neither shapes nor the GPU's memory. It is what people call the instance;
    nothing else is taken from it."""
    label = device_name.rpartition(" ")[2].lower()
    return label if is_profile(label) else ""


def _shape_of(attributes: Any, known: Sequence[MIGProfile]) -> MIGProfile | None:
    """The shape an instance was cut by: of those with as many slices, the nearest in
    memory, then in media engines.
    """
    engines = (
        attributes.sharedCopyEngineCount,
        attributes.sharedDecoderCount,
        attributes.sharedEncoderCount,
        attributes.sharedJpegCount,
        attributes.sharedOfaCount,
    )
    alike = [
        shape for shape in known if shape.gpu_slices == attributes.gpuInstanceSliceCount
    ]
    memory_bytes = attributes.memorySizeMB * MIB
    return min(
        alike,
        key=lambda s: (abs(s.memory_bytes - memory_bytes), s.engines != engines, s.id),
        default=None,
    )


def profile_name(
    gpu_slices: int, compute_slices: int, memory_bytes: int, gpu_bytes: int
) -> str:
    """NVIDIA's name for a MIG shape, such as ``1g.18gb`` for 16 GiB of an H200.

    The number is no size: it is the share of the GPU's memory in eighths, rounded up,
        of its GiB, rounded up.
    """
    eighths = math.ceil(8 * memory_bytes / gpu_bytes) if gpu_bytes else 8
    gigabytes = math.floor(
        eighths / 8 * math.ceil((gpu_bytes or memory_bytes) / 2**30) + 0.5
    )
    compute = f"{compute_slices}c." if compute_slices != gpu_slices else ""
    return f"{compute}{gpu_slices}g.{gigabytes}gb"


def counted(slice_: Slice, device: Device) -> Slice:
    """The slice with the slice counts of its instance, which ledgers of earlier
    versions do not keep.
    """
    instance = next((each for each in device.mig if each.uuid == slice_.uuid), None)
    if instance is None or slice_.gpu_slices:
        return slice_
    return replace(
        slice_, gpu_slices=instance.gpu_slices, compute_slices=instance.compute_slices
    )


def shares_memory(slice_: Slice) -> bool:
    """Whether a slice is a compute instance (``1c.2g.35gb``), whose memory is its
    neighbours' too.
    """
    return 0 < slice_.compute_slices < slice_.gpu_slices


def enforcement(gpu_slices: int, compute_slices: int) -> Enforcement:
    """What holds an instance: hardware, but for an instance with a part of its GPU
    instance's slices only its cores.
    """
    return Enforcement.L0 if 0 < compute_slices < gpu_slices else Enforcement.L4


def memory_seen(slice_: Slice) -> int:
    """Bytes a process on this instance is shown: for a compute instance, all of its GPU
    instance's.
    """
    return (
        slice_.memory_bytes * slice_.gpu_slices // slice_.compute_slices
        if shares_memory(slice_)
        else slice_.memory_bytes
    )
