"""Lines that describe a driver's devices to the fake, and slices of them."""

from __future__ import annotations

from fractions import Fraction

from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    MIGInstance,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.units import GIB, MIB

SETUP = """
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from tests.fakes.measuring import device_usage, loads, usage
provider = GPUProvider()
"""
CLOCKED = (
    SETUP
    + """
from jupyter_aistack.testing import ManualClock
from tests.fakes.waiting import wait_until
clock = ManualClock()
provider = GPUProvider(clock=clock)
def look(seconds=60.0):
    # What there is after so much time.
    clock.advance(seconds)
    return provider.discover("box")
def look_until(is_wanted):
    # The same moment, until what the driver reports has come.
    return wait_until(lambda: [found for found in [look(0.0)] if is_wanted(found)])[0]
"""
)

H200_BYTES = 143165 * MIB
"""What CUDA has of an H200."""
H200_RESERVED = 606 * MIB
"""What the driver keeps of it for itself; NVML's total counts both."""


def h200(index: int = 0, **more: object) -> str:
    keys = {
        "uuid": f"GPU-{index}",
        "name": "NVIDIA_H200",
        "memory": H200_BYTES + H200_RESERVED,
        "reserved": H200_RESERVED,
        "cores": 16896,
        **more,
    }
    return "gpu " + " ".join(f"{key}={value}" for key, value in keys.items()) + "\n"


def instance(slot: int, gpu: int = 0, **more: object) -> str:
    keys = {
        "gpu": gpu,
        "uuid": f"MIG-{gpu}{slot}",
        "gi": slot + 7,
        "slot": slot,
        "slices": 1,
        "memory_mb": 16384,
    }
    return (
        "mig "
        + " ".join(
            f"{key}={value}" for key, value in (keys | {"sms": 16, **more}).items()
        )
        + "\n"
    )


def shape(number: int, name: str, gpu: int = 0, **more: object) -> str:
    keys = {
        "gpu": gpu,
        "profile": number,
        "id": 19 - number,
        "name": f"MIG_{name}",
        "slices": 1,
        "memory_mb": 16384,
    }
    return (
        "shape "
        + " ".join(
            f"{key}={value}" for key, value in (keys | {"starts": 0, **more}).items()
        )
        + "\n"
    )


def described(
    uuid: str, profile: str, memory_bytes: int, *, sms: int, slices: int
) -> MIGInstance:
    return MIGInstance(
        uuid=uuid,
        profile=profile,
        memory_bytes=memory_bytes,
        multiprocessors=sms,
        gpu_slices=slices,
        compute_slices=slices,
    )


def process(pid: int, memory_bytes: int, gpu: int = 0, **more: object) -> str:
    keys = {"gpu": gpu, "pid": pid, "memory": memory_bytes, **more}
    return "process " + " ".join(f"{key}={value}" for key, value in keys.items()) + "\n"


def share(fraction: str, device: Device) -> Slice:
    part = Fraction(fraction)
    kind = SliceKind.GPU if part == 1 else SliceKind.SHARE
    memory_bytes = int(part * device.memory_bytes)
    return Slice(
        device_id=device.id,
        kind=kind,
        fraction=part,
        memory_bytes=memory_bytes,
        uuid=device.id,
    )


def slice_of(device: Device, mig: MIGInstance) -> Slice:
    return Slice(
        device_id=device.id,
        kind=SliceKind.MIG,
        fraction=Fraction(mig.memory_bytes, device.memory_bytes),
        memory_bytes=mig.memory_bytes,
        uuid=mig.uuid,
        profile=mig.profile,
        gpu_slices=mig.gpu_slices,
        compute_slices=mig.compute_slices,
    )


def gpu(index: int = 0, **more: object) -> Device:
    values: dict[str, object] = {
        "name": "NVIDIA H200",
        "memory_bytes": 80 * GIB,
        **more,
    }
    return Device(
        id=f"GPU-{index}", host="box", kind=DeviceKind.GPU, index=index, **values
    )  # type: ignore[arg-type]
