"""Finds out how well this host can suspend, once a server has a broker: from what is
known of its driver, then by a trial.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import TYPE_CHECKING

from jupyter_aistack.core.model.device import Device, DeviceKind, ProcessUse
from jupyter_aistack.core.model.device_state import SuspendMethod
from jupyter_aistack.core.suspend.capability import (
    NO_GPU,
    SWITCHED_OFF,
    SuspendCapability,
)
from jupyter_aistack.providers.nvidia.checkpoint import drivers
from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient

from . import selftest

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker

SIMULATED = SuspendCapability(
    tier=SuspendMethod.OFFLOAD,
    why="on simulated GPUs objects registered with aistack.offloadable() move, and nothing else is there",
)
Test = Callable[[str, CheckpointClient, selftest.Held], str]


def find_out(
    broker: Broker,
    helper: CheckpointClient,
    results: selftest.Results,
    driver: Callable[[], str],
    test: Test = selftest.run,
) -> SuspendCapability:
    """How well the broker's host can suspend; takes seconds where a GPU has not been
    tried before.

    Args:
        broker: knows the devices.
        helper: who speaks to the driver.
        results: of the tests before.
        driver: asks for the driver's version.
        test: tries one GPU.
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
    why = drivers.why_not(version, platform.machine())
    for gpu in usable:
        why = why or _tried(broker, gpu, helper, results, version, test)
    return SuspendCapability(
        tier=SuspendMethod.OFFLOAD if why else SuspendMethod.CHECKPOINT, why=why
    )


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

    def held(pid: int) -> int | None:
        broker.devices.forget()
        listed = _processes_on(broker, gpu)
        if listed is None:
            return None
        uses = {use.pid: use.memory_bytes for use in listed}
        return (uses[pid] or None) if pid in uses else 0

    why = test(gpu.id, helper, held)
    results.note(driver, gpu.id, has_passed=not why)
    return f"{gpu.name}: {why}" if why else ""


def _processes_on(broker: Broker, gpu: Device) -> tuple[ProcessUse, ...] | None:
    for device in broker.inventory().devices:
        if device.id == gpu.id:
            return device.processes
    return gpu.processes
