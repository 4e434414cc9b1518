"""Finds out how well this host can suspend, once a server has a broker: from what is
known of its driver, then by a trial.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import TYPE_CHECKING

from jupyter_aistack.core.model.device import Device, DeviceKind
from jupyter_aistack.core.model.device_state import SuspendMethod
from jupyter_aistack.core.suspend.capability import (
    NO_GPU,
    SWITCHED_OFF,
    SuspendCapability,
)
from jupyter_aistack.core.suspend.departure import DeviceUse
from jupyter_aistack.providers.nvidia.checkpoint import drivers
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient

from . import selftest

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker

SIMULATED = SuspendCapability(
    tier=SuspendMethod.OFFLOAD,
    why="on simulated GPUs objects registered with aistack.offloadable() move, and nothing else is there",
)
Test = Callable[[str, CheckpointClient, selftest.Measure], str]
MeasureContext = Callable[[str, selftest.Measure], int | None]


def find_out(
    broker: Broker,
    helper: CheckpointClient,
    results: selftest.Results,
    driver: Callable[[], str],
    test: Test = selftest.run,
    measure_context: MeasureContext = selftest.measure_context,
) -> SuspendCapability:
    """How well the broker's host can suspend; takes seconds where a GPU has not been
    tried before.

    Args:
        broker: knows the devices.
        helper: who speaks to the driver.
        results: of the tests before.
        driver: asks for the driver's version.
        test: tries one GPU.
        measure_context: finds out what a context takes on one.
    """
    if broker.suspend is None:
        return SWITCHED_OFF
    gpus = broker.inventory().of_kind(DeviceKind.GPU)
    if not gpus:
        return NO_GPU
    if all(gpu.simulated for gpu in gpus):
        return SIMULATED
    usable = [gpu for gpu in gpus if not gpu.mig_enabled and gpu.is_healthy]
    if not usable:
        return SuspendCapability(
            tier=SuspendMethod.OFF,
            why="its GPUs run in MIG mode, which the driver cannot suspend, or do not answer",
        )
    version = driver()
    known = [
        _context_bytes(broker, gpu, results, version, measure_context) for gpu in usable
    ]
    why = drivers.why_not(version, platform.machine())
    for gpu in usable:
        why = why or _tried(broker, gpu, helper, results, version, test)
    return SuspendCapability(
        tier=SuspendMethod.OFFLOAD if why else SuspendMethod.CHECKPOINT,
        why=why,
        context_bytes=max((size for size in known if size is not None), default=None),
    )


def _context_bytes(
    broker: Broker,
    gpu: Device,
    results: selftest.Results,
    driver: str,
    measure_context: MeasureContext,
) -> int | None:
    """What a bare context takes on a GPU; measured once for its driver and model."""
    size = results.context_bytes(driver, gpu.name)
    if size is None:
        size = measure_context(gpu.id, _measure(broker, gpu))
        if size is not None:
            results.note_context(driver, gpu.name, size)
    if size is not None:
        broker.devices.context_bytes[gpu.id] = size
    return size


def _tried(
    broker: Broker,
    gpu: Device,
    helper: CheckpointClient,
    results: selftest.Results,
    driver: str,
    test: Test,
) -> str:
    if results.passed(driver, gpu.id):
        return ""
    why = test(gpu.id, helper, _measure(broker, gpu))
    results.note(driver, gpu.id, has_passed=not why)
    return f"{gpu.name}: {why}" if why else ""


def _measure(broker: Broker, gpu: Device) -> selftest.Measure:
    """Asks NVML anew what a process holds on a GPU. Listed with nothing or not listed
    is 0; a figure that is kept back, or a list that cannot be read, is unknown.
    """

    def measure(pid: int) -> DeviceUse:
        broker.devices.forget()
        devices = broker.inventory().devices
        device = next((each for each in devices if each.id == gpu.id), gpu)
        if device.processes is None:
            return DeviceUse(used_bytes=device.used_bytes)
        uses = {use.pid: use.memory_bytes for use in device.processes}
        return DeviceUse(held_bytes=uses.get(pid, 0), used_bytes=device.used_bytes)

    return measure
