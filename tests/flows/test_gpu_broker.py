"""Leases on a fake driver's GPUs, through a real broker: strangers, shares, and
hardware that changes meanwhile.
"""

from __future__ import annotations

import psutil
import pytest

from jupyter_aistack.core.model.lease import Outcome
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import Unsatisfiable

GPU = f"gpu uuid=GPU-a name=NVIDIA_H100_80GB_HBM3 memory={80 * GIB} cores=16896\n"
MIG = (
    f"gpu uuid=GPU-a name=NVIDIA_H100_80GB_HBM3 memory={80 * GIB} mig=1\n"
    "mig gpu=0 uuid=MIG-a gi=7 slot=0 slices=1 memory_mb=9728 sms=16\n"
)
SETUP = """
import os
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from jupyter_aistack.testing import ManualClock, holder
clock = ManualClock()
broker = Broker(MemoryLedger(), [GPUProvider()], host="testbox", clock=clock, ttl_seconds=3600.0)
def submit(spec, name="kernel-1"):
    return broker.submit(spec, holder(name, pid=os.getpid()))
def lease_of(request):
    return broker.lease(request.lease_id)
def later():
    clock.advance(10)
    broker.cycle()
"""


def process(pid: int, memory_bytes: int) -> str:
    return f"process gpu=0 pid={pid} memory={memory_bytes} sm=50\n"


def test_what_a_leases_own_process_holds_is_not_foreign(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP)
    child.run("first = submit('1/2')")
    fake_nvml.change(GPU + process(child.pid, 38 * GIB))
    child.run("clock.advance(10)")
    assert child("broker.inventory().devices[0].foreign_memory_bytes") == 0
    assert child("submit('1/2', 'kernel-2').state") is RequestState.GRANTED
    used = child("broker.usage()[0][first.lease_id]")
    assert (used.memory_bytes, used.utilization) == (38 * GIB, 0.5)


# -- what cannot be seen is not absent -------------------------------------------------

# As in a container that is given the host's process ids: no other id is known here.
CONTAINER = """
from jupyter_aistack.system.pid_namespace import PidNamespace
broker.close()
broker = Broker(MemoryLedger(), [GPUProvider()], host="testbox", clock=clock, ttl_seconds=3600.0,
                pid_namespace=PidNamespace(is_initial=lambda: False))
"""
OF_HOST = 4242017
NO_LIST = GPU.replace("\n", f" nolist=1 used={78 * GIB}\n")
NO_FIGURES = GPU.replace("\n", f" used={78 * GIB}\n") + process(1, -1)
HALF_USED = GPU.replace("\n", f" used={38 * GIB}\n")


@pytest.mark.parametrize("full", [NO_LIST, NO_FIGURES], ids=["WSL", "WDDM"])
def test_a_full_gpu_is_not_granted_where_its_processes_cannot_be_seen(
    fake_nvml, full: str
) -> None:
    child = fake_nvml.python(full, SETUP)
    for spec in ("1", "1/2"):
        assert child("submit(spec, spec).state", spec=spec) is RequestState.QUEUED
    assert all(
        "78.0 GiB of its memory are held by processes outside aistack" in reason
        for reason in child("[waiting.reason for waiting in broker.queue()][:1]")
    )
    fake_nvml.change(GPU.replace("\n", " nolist=1 used=300000000\n"))
    child.run("later()")
    assert child("broker.leases()[0].is_live")


def test_a_gap_in_the_list_counts_what_is_in_use_without_ours(fake_nvml) -> None:
    child = fake_nvml.python(GPU + GPU.replace("GPU-a", "GPU-b"), SETUP)
    child.run("first = submit('1/2')")
    gaps = GPU.replace("\n", f" used={75 * GIB}\n") + GPU.replace("GPU-a", "GPU-b")
    fake_nvml.change(gaps + process(child.pid, 30 * GIB) + process(1, -1))
    child.run("clock.advance(10)")
    first, second = child("broker.inventory().devices")
    assert (first.foreign_memory_bytes, first.own_memory_bytes) == (45 * GIB, 30 * GIB)
    assert second.foreign_memory_bytes == 0
    # What is left of the first is too little, so the second is cut.
    child.run("next_one = lease_of(submit('1/2', 'kernel-2'))")
    assert child("next_one.slices[0].device_id") == "GPU-b"


def test_ids_of_another_namespace_are_nobodys_and_refuse_nothing(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP + CONTAINER)
    child.run("first = submit('1/2')")
    fake_nvml.change(HALF_USED + process(OF_HOST, 38 * GIB))
    child.run("clock.advance(10)")
    assert child("broker.inventory().devices[0].foreign_memory_bytes") is None
    assert child("submit('1/2', 'kernel-2').state") is RequestState.GRANTED
    used = child("broker.usage()[0][first.lease_id]")
    assert (used.memory_bytes, used.utilization) == (None, None)
    # Nothing watches its bound, and it says so.
    child.run("broker.maintain()")
    kinds = child("[each.kind.value for each in lease_of(first).conditions]")
    assert kinds == ["MemoryUnknown"]


def test_in_a_container_what_no_lease_can_hold_is_others(fake_nvml) -> None:
    child = fake_nvml.python(NO_LIST.replace(" nolist=1", ""), SETUP + CONTAINER)
    fake_nvml.change(NO_LIST.replace(" nolist=1", "") + process(OF_HOST, 78 * GIB))
    assert child("submit('1/2').state") is RequestState.QUEUED
    assert "78.0 GiB" in child("broker.queue()[0].reason")


def test_in_a_container_teardown_takes_a_kernel_for_one_that_uses_its_gpu(
    fake_nvml,
) -> None:
    child = fake_nvml.python(GPU, SETUP + CONTAINER)
    child.run(
        "from jupyter_aistack.broker.device_processes import DeviceProcesses\n"
        "first = lease_of(submit('1/2'))\n"
        "seen = DeviceProcesses(broker, [first], os.getpid())"
    )
    assert not child("seen.has_started()")
    fake_nvml.change(HALF_USED + process(OF_HOST, 38 * GIB))
    child.run("clock.advance(10)")
    assert child("seen.has_started()")
    assert child("seen.is_working(clock() - 1.0)") is None


@pytest.mark.parametrize("spec", ["1/2", "1"])
def test_in_a_container_energy_is_unknown_but_for_who_has_all_of_it(
    fake_nvml, spec: str
) -> None:
    def drawn(joules: int) -> str:
        return HALF_USED.replace("\n", f" energy_mj={joules * 1000}\n")

    child = fake_nvml.python(
        drawn(0).replace(f"used={38 * GIB}", "used=0"), SETUP + CONTAINER
    )
    child.run(f"first = submit({spec!r}); broker.record_usage(settle=True)")
    for step in range(1, 4):
        fake_nvml.change(drawn(1000 * step) + process(OF_HOST, 38 * GIB))
        child.run("clock.advance(5.0); broker.record_usage(settle=True)")
    (charge,) = child(
        "[c for c in broker.ledger.charges(0, 99_999) if c.lease_id == first.lease_id]"
    )
    known = (charge.seconds, charge.metered_seconds, charge.millijoules)
    assert known == (
        (15.0, 15.0, 3_000_000) if spec == "1" else (15.0, 0.0, 1_500_000)
    ), "of a half, the idle part alone is charged, and not called known"


def test_a_gpu_that_works_in_the_hosts_memory_can_be_shared(fake_nvml) -> None:
    unified = GPU.replace("\n", " unified=1\n").replace("H100_80GB_HBM3", "GB10")
    child = fake_nvml.python(unified + process(1, GIB), SETUP)
    device = child("broker.inventory().devices[0]")
    assert device.problem == ""
    assert device.memory_bytes == psutil.virtual_memory().total
    assert 0 < device.free_bytes <= device.memory_bytes
    half = child("lease_of(submit('1/2'))")
    assert half.slices[0].memory_bytes == device.memory_bytes // 2


# -- strangers and hardware ------------------------------------------------------------


def test_a_request_waits_for_a_stranger_to_leave_and_says_so(fake_nvml) -> None:
    child = fake_nvml.python(GPU + process(1, 60 * GIB), SETUP)
    waiting = child("submit('1/2')")
    assert waiting.state is RequestState.QUEUED
    assert "60.0 GiB of its memory are held by processes outside aistack" in child(
        "broker.queue()[0].reason"
    )
    fake_nvml.change(GPU)
    child.run("later()")
    assert (
        child("broker.request(request_id).state", request_id=waiting.id)
        is RequestState.GRANTED
    )


def test_a_lost_gpu_grants_nothing_until_it_is_back(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP)
    child.run("broker.inventory(); clock.advance(10)")
    fake_nvml.change(GPU.replace("\n", " lost=15\n"))
    waiting = child("submit('1')")
    assert waiting.state is RequestState.QUEUED
    assert "fell off the bus" in child("broker.queue()[0].reason")
    fake_nvml.change("session 2\n" + GPU)
    child.run("clock.advance(60); later()")
    assert (
        child("broker.request(request_id).state", request_id=waiting.id)
        is RequestState.GRANTED
    )


def test_a_lease_is_prepared_with_its_own_name_and_level(fake_nvml) -> None:
    child = fake_nvml.python(MIG, SETUP)
    child.run("held = lease_of(submit('1g.10gb')); prepared = broker.prepare(held)")
    environment = child("dict(prepared.environment)")
    assert environment["CUDA_VISIBLE_DEVICES"] == "MIG-a"
    assert environment["AISTACK_LEASE"] == child("held.id")
    assert child("broker.lease(held.id).enforced_by.value") == "L4"


def test_a_lease_on_a_gpu_that_broke_before_use_ends_as_failed(fake_nvml) -> None:
    child = fake_nvml.python(GPU, SETUP)
    child.run("held = lease_of(submit('1/2')); clock.advance(10)")
    fake_nvml.change(GPU.replace("\n", " lost=15\n"))
    with pytest.raises(Exception, match="fell off the bus"):
        child("broker.prepare(held)")
    assert child("broker.lease(held.id).outcome") is Outcome.FAILED


def test_a_share_of_a_gpu_cut_into_instances_names_what_to_ask_for(fake_nvml) -> None:
    child = fake_nvml.python(MIG, SETUP)
    with pytest.raises(Unsatisfiable, match=r"ask for one of 1g\.10gb"):
        child("submit('1/4')")
