"""What the clients of an MPS server are given, and what they must find."""

from __future__ import annotations

from dataclasses import replace

from jupyter_aistack.core.enforcement.preparation import Expectation
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.units import MIB

from .control import MPSLimit
from .limits import limit_mib, multiprocessor_unit, multiprocessors_at_most, percent
from .manager import MPSAssignment


def most_of(lease: Lease, device: Device, held: MPSAssignment) -> MPSLimit:
    """What a process may be let have while it runs. A namespace is raised and lowered
    under it, but what it is started with itself stays: that is its ceiling.
    """
    limit = held.limit
    if held.protocol < 3 or lease.up_to is None:
        return limit
    memory_bytes = int(lease.up_to * device.memory_bytes)
    return replace(
        limit,
        percent=max(limit.percent, percent(lease.up_to)),
        mib=max(limit.mib, limit_mib(memory_bytes)),
    )


def client_environment(held: MPSAssignment, most: MPSLimit) -> dict[str, str]:
    """What a client of MPS must be given. The limit names the one GPU that it sees, by
    its number there, as all drivers understand it: an entry that is not understood
    lifts all.
    """
    return {
        "CUDA_MPS_PIPE_DIRECTORY": str(held.directory),
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(most.percent),
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"0={most.mib}M",
    }


def client_expects(
    held: MPSAssignment,
    most: MPSLimit,
    device: Device,
    capability: tuple[int, ...],
) -> Expectation:
    """What such a client must find, at most."""
    share = multiprocessors_at_most(
        device.multiprocessors,
        most.percent,
        protocol=held.protocol,
        unit=multiprocessor_unit(capability),
    )
    return Expectation(memory_free=most.mib * MIB, multiprocessors=share, mps=True)
