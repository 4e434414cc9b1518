"""Leases with a ceiling, and the devices they are on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from jupyter_aistack.core.model.device import Device, DeviceKind, Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.testing import holder

from .world import gpus

GPU = gpus(1)[0]
CPU = Device(
    id="CPU-testbox",
    host="testbox",
    kind=DeviceKind.CPU,
    index=0,
    name="cores",
    memory_bytes=32 * GIB,
    cores=tuple(range(8)),
)


def share_of_gpu(fraction: Fraction, device: Device = GPU) -> Slice:
    return Slice(
        device_id=device.id,
        kind=SliceKind.SHARE,
        fraction=fraction,
        memory_bytes=int(fraction * device.memory_bytes),
        uuid=device.id,
    )


def share_of_cpu(*cores: int) -> Slice:
    fraction = Fraction(len(cores), len(CPU.cores))
    memory = int(fraction * CPU.memory_bytes)
    return Slice(
        device_id=CPU.id,
        kind=SliceKind.CPU,
        fraction=fraction,
        memory_bytes=memory,
        cores=cores,
    )


def a_lease(
    token: int, slices: Sequence[Slice], up_to: str = "", **fields: object
) -> Lease:
    return Lease(
        id=f"l-{token}",
        token=token,
        request_id=f"r-{token}",
        spec=parse_spec("1/4"),
        holder=holder(f"kernel-{token}"),
        slices=tuple(slices),
        granted_at=0.0,
        expires_at=1e9,
        up_to=Fraction(up_to) if up_to else None,
        **fields,  # type: ignore[arg-type]
    )


def quarter(token: int, up_to: str = "", **fields: object) -> Lease:
    return a_lease(token, [share_of_gpu(Fraction(1, 4))], up_to, **fields)
