"""The GPU provider on real hardware: what it says must agree with what CUDA says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest

from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.device import Device, Slice, SliceKind
from jupyter_aistack.core.model.units import GIB, MIB
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.providers.nvidia.enforcement import ShareEnforcer
from jupyter_aistack.providers.nvidia.nvml import NVML
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from tests.fakes.measuring import device_usage, loads, usage

pytestmark = pytest.mark.gpu

HOLD = """
import json, sys, torch
properties = torch.cuda.get_device_properties(0)
print(json.dumps([torch.cuda.device_count(), properties.multi_processor_count, properties.total_memory]), flush=True)
held = torch.ones(1 << 30, dtype=torch.uint8, device="cuda")
torch.cuda.synchronize()
print("held", flush=True)
sys.stdin.readline()
"""
WORK = """
import sys, torch
a = torch.rand(8192, 8192, device="cuda")
print("working", flush=True)
while not sys.stdin.closed and not __import__("select").select([sys.stdin], [], [], 0)[0]:
    for _ in range(20):
        a = (a @ a).clamp(-1, 1)
    torch.cuda.synchronize()
"""
FILL = """
import os, torch
torch.cuda.set_per_process_memory_fraction(float(os.environ["AISTACK_MEMORY_FRACTION"]))
blocks = []
try:
    while True:
        blocks.append(torch.empty(256 << 20, dtype=torch.uint8, device="cuda"))
except torch.cuda.OutOfMemoryError:
    print(torch.cuda.memory_reserved())
"""


@pytest.fixture
def provider() -> Iterator[GPUProvider]:
    nvml = NVML()
    gpus = GPUProvider(nvml, sharing=ShareEnforcer(nvml, is_advisory=True))
    try:
        devices = gpus.discover("box")
    except ProviderError as error:
        pytest.skip(error.message)
    if not any(device.is_healthy and device.is_shareable for device in devices):
        pytest.skip("no GPU of this host can be shared")
    pytest.importorskip("torch")
    yield gpus
    gpus.close()


@pytest.fixture
def device(provider: GPUProvider) -> Device:
    return next(d for d in provider.discover("box") if d.is_healthy and d.is_shareable)


def quarter(device: Device) -> Slice:
    part = Fraction(1, 4)
    memory_bytes = int(part * device.memory_bytes)
    return Slice(
        device_id=device.id,
        kind=SliceKind.SHARE,
        fraction=part,
        memory_bytes=memory_bytes,
        uuid=device.id,
    )


def test_the_driver_and_cuda_agree_on_a_prepared_process(
    provider: GPUProvider, device: Device, lease
) -> None:
    held = lease(quarter(device))
    environment = {
        **os.environ,
        **provider.prepare(held, {device.id: device}).environment,
    }
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        assert child.stdout is not None
        count, multiprocessors, total = json.loads(child.stdout.readline())
        assert child.stdout.readline() == "held\n"
        listed = {
            p.pid: p.memory_bytes
            for p in provider.discover("box")[device.index].processes
        }
        used = usage(provider, {held.id: held}, {held.id: frozenset({child.pid})})[
            held.id
        ]
        on_device = device_usage(provider, {device.id: device})[device.id]
        child.communicate("\n")
    assert (count, multiprocessors) == (1, device.multiprocessors)
    assert 0.95 * device.memory_bytes < total <= device.memory_bytes
    assert listed.get(child.pid, 0) >= GIB
    assert used.memory_bytes == listed[child.pid]
    assert on_device.memory_bytes is not None
    assert on_device.memory_bytes >= GIB
    assert on_device.power_watts is not None
    assert on_device.power_watts > 0


def test_a_capped_process_stays_within_its_share(
    provider: GPUProvider, device: Device, lease
) -> None:
    small = replace(quarter(device), memory_bytes=4 * GIB)
    environment = {
        **os.environ,
        **provider.prepare(lease(small), {device.id: device}).environment,
    }
    reserved = int(
        subprocess.check_output(
            [sys.executable, "-c", FILL], env=environment, text=True
        )
    )
    assert 3 * GIB < reserved <= 4 * GIB - 256 * MIB


def test_energy_and_activity_of_a_process_at_work_are_seen(
    provider: GPUProvider, device: Device, lease
) -> None:
    held, devices = lease(quarter(device)), {device.id: device}
    environment = {**os.environ, **provider.prepare(held, devices).environment}
    command = [sys.executable, "-c", WORK]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "working\n"
        pids = {held.id: frozenset({child.pid})}
        first = loads(provider, devices, {held.id: held}, pids)[device.id]
        deadline = time.monotonic() + 20.0
        while (
            result := loads(provider, devices, {held.id: held}, pids)[device.id]
        ).busy.get(held.id, 0.0) < 0.3:
            assert time.monotonic() < deadline, f"a busy process is seen as {result}"
            time.sleep(1.0)  # the driver samples every 0.2 to 1 second
        child.communicate("\n")
    assert first.millijoules is not None
    assert result.millijoules is not None
    assert result.millijoules > first.millijoules
    assert result.memory[held.id] > 0


LOOK = """
import json, torch
free, _ = torch.cuda.mem_get_info(0)
print(json.dumps([torch.cuda.get_device_properties(0).multi_processor_count, free]))
"""


def test_a_share_under_mps_sees_its_own_multiprocessors_and_memory(
    device: Device, lease
) -> None:
    gpus = GPUProvider()
    result = next(known for known in gpus.discover("box") if known.id == device.id)
    held = lease(quarter(result))
    try:
        prepared = gpus.prepare(held, {result.id: result})
        if prepared.expects.mps is None:
            pytest.skip(
                conditions_text(prepared.conditions) or str(dict(result.why_not))
            )
        environment = {**os.environ, **prepared.environment}
        multiprocessors, free = json.loads(
            subprocess.check_output(
                [sys.executable, "-c", LOOK], env=environment, text=True
            )
        )
        assert gpus.clients(held) == frozenset()
    finally:
        gpus.unprepare(held)
        gpus.close()
    assert multiprocessors <= (prepared.expects.multiprocessors or 0)
    assert free <= (prepared.expects.memory_free or 0)
    assert not os.path.exists(
        prepared.environment["CUDA_MPS_PIPE_DIRECTORY"] + "/control"
    )
