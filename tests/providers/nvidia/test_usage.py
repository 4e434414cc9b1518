"""What the watchdog and a kernel's end ask of the driver: who holds how much, and whose
work still runs.
"""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.testing import holder

SETUP = """
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from tests.fakes.measuring import memory_by_process, works
provider = GPUProvider()
devices = {device.id: device for device in provider.discover('box')}
"""
GPU = f"gpu uuid=GPU-a name=NVIDIA_H200 memory={140 * GIB} cores=16896\n"
CUT = (
    f"gpu uuid=GPU-a name=NVIDIA_H200 memory={140 * GIB} mig=1\n"
    "mig gpu=0 uuid=MIG-a gi=7 slot=0 memory_mb=16384\n"
    "mig gpu=0 uuid=MIG-b gi=8 slot=1 memory_mb=16384\n"
)


def on(*uuids: str) -> dict[str, Lease]:
    """A lease of these GPUs or MIG instances, all of the first GPU."""
    slices = tuple(
        Slice(
            device_id="GPU-a",
            kind=SliceKind.GPU,
            fraction=Fraction(1),
            memory_bytes=GIB,
            uuid=uuid,
        )
        for uuid in uuids
    )
    lease = Lease(
        id="l-1",
        token=1,
        request_id="r-1",
        spec=parse_spec("1"),
        holder=holder(),
        slices=slices,
        granted_at=0.0,
        expires_at=60.0,
    )
    return {lease.id: lease}


def process(pid: int, memory_bytes: int, kind: str = "C", **more: object) -> str:
    rest = "".join(f" {key}={value}" for key, value in more.items())
    return f"process gpu=0 pid={pid} memory={memory_bytes} type={kind}{rest}\n"


def test_each_process_is_listed_once_clients_of_mps_too(fake_nvml) -> None:
    state = GPU + process(11, GIB) + process(11, GIB, "G") + process(12, 2 * GIB, "M")
    held = fake_nvml.python(state, SETUP)(
        "memory_by_process(provider, held, devices)", held=on("GPU-a")
    )
    assert held == {"GPU-a": {11: GIB, 12: 2 * GIB}}


def test_each_instance_of_mig_has_its_own_list(fake_nvml) -> None:
    state = CUT + process(11, GIB, gi=7) + process(12, 2 * GIB, gi=8)
    held = fake_nvml.python(state, SETUP)(
        "memory_by_process(provider, held, devices)", held=on("MIG-a", "MIG-b")
    )
    assert held == {"MIG-a": {11: GIB}, "MIG-b": {12: 2 * GIB}}


def test_what_the_driver_keeps_to_itself_is_none(fake_nvml) -> None:
    child = fake_nvml.python(GPU + process(11, -1), SETUP)
    assert child(
        "memory_by_process(provider, held, devices)", held=on("GPU-a", "GPU-gone")
    ) == {
        "GPU-a": {11: None},
        "GPU-gone": None,
    }


@pytest.mark.parametrize("code", [3, 4, 15, 999])
def test_a_list_that_cannot_be_read_is_none_and_not_empty(fake_nvml, code: int) -> None:
    lists = ("Compute", "Graphics", "MPSCompute")
    broken = "".join(
        f"fail nvmlDeviceGet{name}RunningProcesses_v3 {code}\n" for name in lists
    )
    child = fake_nvml.python(GPU, SETUP)
    fake_nvml.change(GPU + process(11, GIB) + broken)
    assert child("memory_by_process(provider, held, devices)", held=on("GPU-a")) == {
        "GPU-a": None
    }


def test_a_driver_that_goes_away_while_it_is_asked_is_none_and_answers_again_later(
    fake_nvml,
) -> None:
    child = fake_nvml.python(GPU + process(11, GIB), SETUP)
    child("memory_by_process(provider, held, devices)", held=on("GPU-a"))
    fake_nvml.change("session 2\nfail nvmlInit 9\n" + GPU + process(11, GIB))
    assert child("memory_by_process(provider, held, devices)", held=on("GPU-a")) == {
        "GPU-a": None
    }
    fake_nvml.change("session 3\n" + GPU + process(11, 2 * GIB))
    assert child("memory_by_process(provider, held, devices)", held=on("GPU-a")) == {
        "GPU-a": {11: 2 * GIB}
    }


def test_work_is_what_the_driver_has_a_sample_of_for_ones_own_processes(
    fake_nvml,
) -> None:
    child = fake_nvml.python(
        GPU + process(11, GIB, sm=35) + process(12, GIB, sm=0) + process(13, GIB), SETUP
    )
    ask, since = (
        "works(provider, held, devices, frozenset({pid}), since)",
        time.time() - 1,
    )
    assert [
        child(ask, held=on("GPU-a"), pid=pid, since=since) for pid in (11, 12, 13)
    ] == [
        True,
        False,
        False,
    ]
    assert child(ask, held=on("GPU-a"), pid=11, since=time.time() + 60) is False


def test_nobody_can_tell_whose_work_runs_on_mig(fake_nvml) -> None:
    child = fake_nvml.python(CUT + process(11, GIB, gi=7, sm=35), SETUP)
    assert (
        child("works(provider, held, devices, frozenset({11}), 0.0)", held=on("MIG-a"))
        is None
    )
