"""The slices of a lease on NVIDIA GPUs: whether they can be used, and what holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jupyter_aistack.core.model.device import Device, Enforcement, Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.exceptions import PrepareFailed

from . import mig
from .memory_caps import caps, seen_bytes

GPU_KINDS = frozenset({SliceKind.GPU, SliceKind.MIG, SliceKind.SHARE})


def gpu_slices(lease: Lease) -> tuple[Slice, ...]:
    """The slices of a lease that are GPUs or parts of them."""
    return tuple(slice_ for slice_ in lease.slices if slice_.kind in GPU_KINDS)


def usable_slices(lease: Lease, devices: Mapping[str, Device]) -> tuple[Slice, ...]:
    """The same, each as large as it may be used now, with the counts of its MIG
    instance.

    Raises:
        PrepareFailed: a device or an instance is gone or closed, or there is more than
            one instance: CUDA shows a process the first alone.
    """
    effective = lease.effective_slices
    slices = tuple(slice_ for slice_ in effective if slice_.kind in GPU_KINDS)
    instances = [slice_ for slice_ in slices if slice_.kind is SliceKind.MIG]
    if len(instances) > 1:
        raise PrepareFailed(
            "a process can use one MIG instance; ask for "
            f"{instances[0].profile} once for each worker",
            lease_id=lease.id,
        )
    for slice_ in slices:
        _check_usable(slice_, devices)
    return tuple(mig.counted(slice_, devices[slice_.device_id]) for slice_ in slices)


def _check_usable(slice_: Slice, devices: Mapping[str, Device]) -> None:
    device = devices.get(slice_.device_id)
    if device is None:
        raise PrepareFailed(
            f"{slice_.device_id} is no longer there", device_id=slice_.device_id
        )
    if device.problem:
        raise PrepareFailed(f"{device.name} {device.problem}", device_id=device.id)
    instances = {instance.uuid for instance in device.mig}
    if slice_.kind is SliceKind.MIG and slice_.uuid not in instances:
        raise PrepareFailed(
            f"{device.name} has no MIG instance {slice_.uuid} any more",
            device_id=device.id,
        )


def visible_memory(slices: Sequence[Slice], devices: Mapping[str, Device]) -> int:
    """Bytes CUDA may report over all devices shown: an instance shows its own memory, a
    share the whole GPU's.
    """
    shown: dict[str, int] = {}
    for slice_ in slices:
        is_instance = slice_.kind is SliceKind.MIG
        whole = devices[slice_.device_id].memory_bytes
        shown[slice_.uuid] = slice_.memory_bytes if is_instance else whole
    return sum(shown.values())


def framework_caps(
    slices: Iterable[Slice], devices: Mapping[str, Device], level: Enforcement
) -> dict[str, str]:
    """Caps for the tightest of the slices that need any, as the frameworks take one
    figure for all devices.

    Under MPS too: a framework that is refused memory ends, and a framework that is
    capped makes do.
    """
    sizes: list[tuple[int, int, int | None]] = []
    for slice_ in slices:
        if _is_advisory(slice_):
            device = devices[slice_.device_id]
            seen = seen_bytes(slice_, device.memory_bytes, level)
            sizes.append((slice_.memory_bytes, seen, device.context_bytes))
    if not sizes:
        return {}
    return caps(*min(sizes, key=lambda size: size[0] / max(size[1], 1)))


def weakest_level(slices: Sequence[Slice]) -> Enforcement:
    """The level of the slice that is enforced least."""
    if any(_is_advisory(slice_) for slice_ in slices):
        return Enforcement.L0
    if all(slice_.kind is SliceKind.MIG for slice_ in slices):
        return Enforcement.L4
    return Enforcement.WHOLE


def _is_advisory(slice_: Slice) -> bool:
    """Whether nothing but the holder's good will keeps it to its memory."""
    return slice_.kind is SliceKind.SHARE or mig.shares_memory(slice_)
