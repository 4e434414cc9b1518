"""Leases on a fake driver's GPUs, through a real broker: strangers, shares, and
hardware that changes meanwhile.
"""

from __future__ import annotations

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
