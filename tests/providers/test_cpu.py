"""The CPU provider on the real host it runs on, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import psutil
import pytest

from jupyter_aistack.core.enforcement.limit_effect import LimitEffect
from jupyter_aistack.core.enforcement.preparation import Expectation
from jupyter_aistack.core.enforcement.verification import mismatch
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Enforcement,
    Inventory,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.limit import SliceLimit
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import MIB
from jupyter_aistack.core.placement.placement import place
from jupyter_aistack.exceptions import PrepareFailed
from jupyter_aistack.providers.cpu import THREAD_VARIABLES, CPUProvider
from jupyter_aistack.testing import ManualClock
from tests.fakes.ceilings import a_lease
from tests.fakes.measuring import device_usage, usage

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="reads /proc and CPU affinity"
)


@pytest.fixture
def device() -> Device:
    return CPUProvider().discover("box")[0]


def slice_of(device: Device, *cores: int, memory_bytes: int = 512 * MIB) -> Slice:
    chosen = cores or device.cores
    return Slice(
        device_id=device.id,
        kind=SliceKind.CPU,
        fraction=Fraction(len(chosen), max(len(device.cores), len(chosen))),
        memory_bytes=memory_bytes,
        cores=chosen,
    )


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that holds 64 MiB and burns CPU when told, one line of output for each
    step.
    """
    code = "held = bytearray(b'x' * (64 << 20)); print('ready', flush=True); input()\nwhile True: pass"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_the_host_is_one_device_with_the_cores_this_process_may_use(
    device: Device,
) -> None:
    assert (device.id, device.kind, device.index) == ("CPU-box", DeviceKind.CPU, 0)
    assert set(device.cores) <= os.sched_getaffinity(0)
    assert device.cores
    assert 0 < device.memory_bytes <= psutil.virtual_memory().total
    assert device.name
    assert device.is_healthy


def test_a_process_bound_to_some_cores_offers_only_those() -> None:
    core = min(os.sched_getaffinity(0))
    code = f"""
import os
os.sched_setaffinity(0, {{{core}}})
from jupyter_aistack.providers.cpu import CPUProvider
print(CPUProvider().discover("box")[0].cores)
"""
    assert (
        subprocess.check_output([sys.executable, "-c", code], text=True).strip()
        == f"({core},)"
    )


def test_binding_oneself_later_does_not_shrink_the_host() -> None:
    code = """
import os
from jupyter_aistack.providers.cpu import CPUProvider
provider = CPUProvider()
before = provider.discover("box")
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert provider.discover("box") == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_provider_imports_no_psutil() -> None:
    code = (
        "import sys, jupyter_aistack.providers.cpu; assert 'psutil' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prepare_binds_cores_and_threads(device: Device, lease) -> None:
    core = device.cores[0]
    prepared = CPUProvider().prepare(
        lease(slice_of(device, core), spec="cpu:1"), {device.id: device}
    )
    assert prepared.cores == (core,)
    assert prepared.environment == dict.fromkeys(THREAD_VARIABLES, "1")
    assert prepared.expects == Expectation(cores=(core,), threads="1")
    assert prepared.enforced_by is Enforcement.CPU
    assert prepared.memory_limit_bytes == 512 * MIB


def test_a_process_started_as_prepared_finds_what_was_promised(
    device: Device, lease
) -> None:
    placed = place(parse_spec("cpu:1"), Inventory(host="box", devices=(device,)), ())
    assert isinstance(placed, tuple)
    prepared = CPUProvider().prepare(lease(*placed, spec="cpu:1"), {device.id: device})
    code = f"""
import json, os
os.sched_setaffinity(0, {set(prepared.cores)})
print(sorted(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"])
"""
    environment = {**os.environ, **prepared.environment}
    cores, threads = subprocess.check_output(
        [sys.executable, "-c", code], env=environment, text=True
    ).rsplit(maxsplit=1)
    assert (
        mismatch(
            prepared.expects,
            {
                "cores": [int(c) for c in cores.strip("[]").split(",")],
                "threads": threads,
            },
        )
        == ""
    )


def test_cores_that_went_away_cannot_be_prepared(device: Device, lease) -> None:
    with pytest.raises(PrepareFailed, match="may no longer be used"):
        CPUProvider().prepare(lease(slice_of(device, 4095)), {device.id: device})
    with pytest.raises(PrepareFailed):
        CPUProvider().prepare(lease(slice_of(device)), {})


def test_usage_counts_the_memory_of_the_leases_processes(
    device: Device, lease, child: subprocess.Popen[str]
) -> None:
    held = {"l-1": lease(slice_of(device))}
    used = usage(CPUProvider(), held, {"l-1": frozenset({child.pid})})["l-1"]
    assert used.memory_bytes is not None
    assert 64 * MIB < used.memory_bytes < 64 * MIB + 40 * MIB
    assert used.utilization is None


def test_a_process_that_may_not_be_looked_at_is_unknown_and_not_nothing(
    device: Device, lease, child: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "create_time", refuse)
    held = {"l-1": lease(slice_of(device))}
    used = usage(CPUProvider(), held, {"l-1": frozenset({child.pid})})["l-1"]
    assert used == Usage()


def test_memory_that_processes_share_is_counted_at_most_once(
    device: Device, lease
) -> None:
    code = """
import mmap, os
shared = mmap.mmap(-1, 64 << 20)
shared.write(b"x" * (64 << 20))
child = os.fork()
if child:
    print(child, flush=True)
for position in range(0, 64 << 20, 4096):
    shared[position]
if child:
    input()
    os.kill(child, 9)
else:
    import time
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as both:
        assert both.stdout is not None
        pids = frozenset({both.pid, int(both.stdout.readline())})
        used = usage(CPUProvider(), {"l-1": lease(slice_of(device))}, {"l-1": pids})[
            "l-1"
        ]
        both.communicate("\n")
    assert used.memory_bytes is not None
    assert used.memory_bytes < 100 * MIB


def test_usage_is_busy_when_the_process_is(
    device: Device, lease, child: subprocess.Popen[str]
) -> None:
    provider = CPUProvider()
    held, pids = (
        {"l-1": lease(slice_of(device, device.cores[0]))},
        {"l-1": frozenset({child.pid})},
    )
    usage(provider, held, pids)
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    _burn(child.pid, 0.4)
    used = usage(provider, held, pids)["l-1"]
    assert used.utilization is not None
    assert 0.05 < used.utilization <= 1.0


def test_an_idle_process_is_not_busy(
    device: Device, lease, child: subprocess.Popen[str]
) -> None:
    clock = ManualClock()
    provider = CPUProvider(clock=clock)
    held, pids = {"l-1": lease(slice_of(device))}, {"l-1": frozenset({child.pid})}
    usage(provider, held, pids)
    clock.advance(10)
    assert usage(provider, held, pids)["l-1"].utilization == pytest.approx(
        0.0, abs=0.01
    )


def test_asking_twice_at_once_repeats_the_last_share(device: Device, lease) -> None:
    clock = ManualClock()
    provider = CPUProvider(clock=clock)
    held, pids = {"l-1": lease(slice_of(device))}, {"l-1": frozenset({os.getpid()})}
    usage(provider, held, pids)
    clock.advance(1)
    first = usage(provider, held, pids)["l-1"].utilization
    clock.advance(0.01)
    assert first is not None
    assert usage(provider, held, pids)["l-1"].utilization == first


def test_a_process_that_vanished_is_skipped(device: Device, lease) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    used = usage(
        CPUProvider(), {"l-1": lease(slice_of(device))}, {"l-1": frozenset({gone.pid})}
    )["l-1"]
    assert used.memory_bytes == 0


def test_leases_that_ended_are_forgotten(device: Device, lease) -> None:
    clock = ManualClock()
    provider = CPUProvider(clock=clock)
    held, pids = {"l-1": lease(slice_of(device))}, {"l-1": frozenset({os.getpid()})}
    usage(provider, held, pids)
    usage(provider, {}, {})
    clock.advance(1)
    assert usage(provider, held, pids)["l-1"].utilization is None


def test_device_usage_measures_the_host(device: Device) -> None:
    clock = ManualClock()
    provider = CPUProvider(clock=clock)
    first = device_usage(provider, {device.id: device})[device.id]
    clock.advance(1)
    second = device_usage(provider, {device.id: device})[device.id]
    assert first.utilization is None
    assert second.utilization is not None
    assert 0 <= second.utilization <= 1
    assert first.memory_bytes is not None
    assert 0 < first.memory_bytes < psutil.virtual_memory().total
    assert (second.power_watts, second.energy_joules) == (None, None)


def _burn(pid: int, seconds: float) -> None:
    """Wait until a process has used that much CPU time."""
    process, deadline = psutil.Process(pid), time.monotonic() + 30
    while process.cpu_times().user < seconds:
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- a ceiling -------------------------------------------------------------------------


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_lease_with_a_ceiling_is_widened_and_narrowed_while_it_runs(
    device: Device, child: subprocess.Popen[str]
) -> None:
    first, second = device.cores[:2]
    provider = CPUProvider()
    devices = {each.id: each for each in provider.discover("box")}
    narrow = a_lease(1, [slice_of(device, first)], "1/1")
    limit = SliceLimit(
        device_id=device.id,
        fraction=Fraction(1),
        memory_bytes=device.memory_bytes,
        cores=(first, second),
    )
    wide = replace(narrow, limits=(limit,))
    prepared = provider.prepare(wide, devices)
    assert prepared.cores == (first, second)
    assert prepared.environment["OMP_NUM_THREADS"] == "2"
    assert prepared.memory_limit_bytes == device.memory_bytes
    # Its cores come and go while it is checked from inside: at most its ceiling.
    assert prepared.expects.cores is None
    assert prepared.expects.most_cores == len(device.cores)
    assert not mismatch(prepared.expects, {"cores": [first], "threads": "2"})

    os.sched_setaffinity(child.pid, {first})
    assert provider.adjust(wide, devices, [child.pid]) is LimitEffect.NOW
    assert os.sched_getaffinity(child.pid) == {first, second}
    assert provider.adjust(narrow, devices, [child.pid]) is LimitEffect.NOW
    assert os.sched_getaffinity(child.pid) == {first}
    assert provider.adjust(wide, devices, []) is LimitEffect.UNKNOWN


def test_a_ceiling_below_all_cores_is_checked_from_inside(device: Device) -> None:
    low = a_lease(1, [slice_of(device, device.cores[0])], "1/1")
    low = replace(low, up_to=Fraction(1, max(2, len(device.cores))))
    provider = CPUProvider()
    devices = {each.id: each for each in provider.discover("box")}
    expects = provider.prepare(low, devices).expects
    seen = {"cores": list(range(4)), "threads": "1"}
    assert mismatch(expects, seen) == "the process may run on 4 CPU cores instead of 1"
