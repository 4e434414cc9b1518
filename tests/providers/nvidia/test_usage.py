"""What the watchdog and a kernel's end ask of the driver: who holds how much, and whose
work still runs.
"""

from __future__ import annotations

import time

import pytest

from jupyter_aistack.core.model.units import GIB

SETUP = "from jupyter_aistack.providers.nvidia.provider import GPUProvider\nprovider = GPUProvider()\n"
GPU = f"gpu uuid=GPU-a name=NVIDIA_H200 memory={140 * GIB} cores=16896\n"
CUT = (
    f"gpu uuid=GPU-a name=NVIDIA_H200 memory={140 * GIB} mig=1\n"
    "mig gpu=0 uuid=MIG-a gi=7 slot=0 memory_mb=16384\n"
    "mig gpu=0 uuid=MIG-b gi=8 slot=1 memory_mb=16384\n"
)


def process(pid: int, memory_bytes: int, kind: str = "C", **more: object) -> str:
    rest = "".join(f" {key}={value}" for key, value in more.items())
    return f"process gpu=0 pid={pid} memory={memory_bytes} type={kind}{rest}\n"


def test_each_process_is_listed_once_clients_of_mps_too(fake_nvml) -> None:
    state = GPU + process(11, GIB) + process(11, GIB, "G") + process(12, 2 * GIB, "M")
    held = fake_nvml.python(state, SETUP)("provider.memory_by_process(['GPU-a'])")
    assert held == {"GPU-a": {11: GIB, 12: 2 * GIB}}


def test_each_instance_of_mig_has_its_own_list(fake_nvml) -> None:
    state = CUT + process(11, GIB, gi=7) + process(12, 2 * GIB, gi=8)
    held = fake_nvml.python(state, SETUP)(
        "provider.memory_by_process(['MIG-a', 'MIG-b'])"
    )
    assert held == {"MIG-a": {11: GIB}, "MIG-b": {12: 2 * GIB}}


def test_what_the_driver_keeps_to_itself_is_none(fake_nvml) -> None:
    child = fake_nvml.python(GPU + process(11, -1), SETUP)
    assert child("provider.memory_by_process(['GPU-a', 'GPU-gone'])") == {
        "GPU-a": {11: None},
        "GPU-gone": None,
    }


@pytest.mark.parametrize("code", [3, 4, 15, 999])
def test_a_list_that_cannot_be_read_is_none_and_not_empty(fake_nvml, code: int) -> None:
    lists = ("Compute", "Graphics", "MPSCompute")
    broken = "".join(
        f"fail nvmlDeviceGet{name}RunningProcesses_v3 {code}\n" for name in lists
    )
    child = fake_nvml.python(GPU + process(11, GIB) + broken, SETUP)
    assert child("provider.memory_by_process(['GPU-a'])") == {"GPU-a": None}


def test_a_driver_that_goes_away_while_it_is_asked_is_none_and_answers_again_later(
    fake_nvml,
) -> None:
    child = fake_nvml.python(
        GPU + process(11, GIB), SETUP + "provider.memory_by_process(['GPU-a'])"
    )
    fake_nvml.change("session 2\nfail nvmlInit 9\n" + GPU + process(11, GIB))
    assert child("provider.memory_by_process(['GPU-a'])") == {"GPU-a": None}
    fake_nvml.change("session 3\n" + GPU + process(11, 2 * GIB))
    assert child("provider.memory_by_process(['GPU-a'])") == {"GPU-a": {11: 2 * GIB}}


def test_work_is_what_the_driver_has_a_sample_of_for_ones_own_processes(
    fake_nvml,
) -> None:
    child = fake_nvml.python(
        GPU + process(11, GIB, sm=35) + process(12, GIB, sm=0) + process(13, GIB), SETUP
    )
    ask, since = (
        "provider.is_working(['GPU-a'], frozenset({pid}), since)",
        time.time() - 1,
    )
    assert [child(ask, pid=pid, since=since) for pid in (11, 12, 13)] == [
        True,
        False,
        False,
    ]
    assert child(ask, pid=11, since=time.time() + 60) is False


def test_nobody_can_tell_whose_work_runs_on_mig(fake_nvml) -> None:
    child = fake_nvml.python(CUT + process(11, GIB, gi=7, sm=35), SETUP)
    assert child("provider.is_working(['MIG-a'], frozenset({11}), 0.0)") is None
