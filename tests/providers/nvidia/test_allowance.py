"""The GPUs of a launcher: as it was shown them, and as its device files let it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.exceptions import ProviderError
from tests.fakes.nvml.states import SETUP, h200, instance, shape

FOUR = "".join(h200(i, uuid=f"GPU-{'abcd'[i]}{i}") for i in range(4))
IDS = ("GPU-a0", "GPU-b1", "GPU-c2", "GPU-d3")
FIND = "[device.id for device in provider.discover('box')]"
CHILD = SETUP + f"print(' '.join({FIND}))\n"
FILES = """
from pathlib import Path
from jupyter_aistack.providers.nvidia.allowance import GPUAllowance
from jupyter_aistack.providers.nvidia.nvml import NVML
from jupyter_aistack.system.device_files import DeviceFiles
def build(dev, root, membership):
    nvml = NVML()
    files = DeviceFiles(Path(dev), Path(root), Path(membership))
    return GPUProvider(nvml, allowance=GPUAllowance(nvml, files=files))
"""


def shown(child: Any, **environment: str) -> Any:
    """Have a process build its provider anew, with these variables and no others of
    CUDA's; gives the process.
    """
    child.run(
        "import os\n"
        "for name in ('CUDA_VISIBLE_DEVICES', 'CUDA_DEVICE_ORDER'):\n"
        "    os.environ.pop(name, None)\n"
        "os.environ |= environment\n"
        "provider = GPUProvider()\n",
        environment=environment,
    )
    return child


def test_only_what_the_launcher_sees_is_found(fake_nvml) -> None:
    child = fake_nvml.python(FOUR, SETUP)
    assert tuple(shown(child)(FIND)) == IDS
    expected = {
        "2": IDS[2:3],
        "3,1": (IDS[1], IDS[3]),
        "GPU-c2": IDS[2:3],
        "GPU-d,GPU-a": (IDS[0], IDS[3]),
        "": (),
        "-1": (),
        "NoDevFiles": (),
        "1,9,2": IDS[1:2],
    }
    listed = {
        text: tuple(shown(child, CUDA_VISIBLE_DEVICES=text)(FIND)) for text in expected
    }
    assert listed == expected


def test_a_request_gets_the_launchers_gpu_and_not_somebody_elses(
    fake_nvml, monkeypatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    child = fake_nvml.python(
        FOUR,
        "from jupyter_aistack.providers.registry import build_providers\n"
        "from jupyter_aistack.broker.broker import Broker\n"
        "from jupyter_aistack.ledger.memory import MemoryLedger\n"
        "from jupyter_aistack.testing import ManualClock, holder\n"
        "broker = Broker(MemoryLedger(), build_providers('gpu'), host='testbox', clock=ManualClock())\n",
    )
    child.run("held = broker.lease(broker.submit('1', holder()).lease_id)")
    assert child("broker.prepare(held).environment['CUDA_VISIBLE_DEVICES']") == "GPU-c2"
    with pytest.raises(Exception, match="this host has 1 GPU"):
        child("broker.submit('2', holder('kernel-2'))")


# -- inside what was given by us -------------------------------------------------------


def below(fake_nvml: Any, *, shown: str | None, slice_: str, mark: str) -> list[str]:
    """What a process with a slice finds whose launcher is shown this."""
    code = (
        "import os, subprocess, sys\n"
        f"given = {{**os.environ, {mark!r}: 'x-1', 'CUDA_VISIBLE_DEVICES': {slice_!r}}}\n"
        f"subprocess.run([sys.executable, '-c', {CHILD!r}], env=given)\n"
    )
    environment = {**fake_nvml.environment(FOUR), "PYTHONPATH": ":".join(sys.path)}
    if shown is not None:
        environment["CUDA_VISIBLE_DEVICES"] = shown
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(("given", "ids"), [(None, IDS), ("1,2", IDS[1:3])])
def test_a_slice_is_no_narrowing_of_the_host(
    fake_nvml, given: str | None, ids: tuple[str, ...]
) -> None:
    listed = below(fake_nvml, shown=given, slice_="GPU-b1", mark="AISTACK_LEASE")
    assert tuple(listed) == ids


def test_a_kernel_whose_gpus_are_hidden_can_still_ask_for_them(fake_nvml) -> None:
    hidden = below(fake_nvml, shown="3", slice_="", mark="AISTACK_KERNEL")
    assert hidden == ["GPU-d3"]


# -- in which order --------------------------------------------------------------------

SLOW = "GPU-abababab-abab-abab-abab-abababababab"
FAST = "GPU-11111111-1111-1111-1111-111111111111"
MIXED = h200(0, uuid=SLOW, name="NVIDIA_T4") + h200(1, uuid=FAST)


def test_a_number_means_what_cuda_means_by_it(fake_nvml, driver) -> None:
    child = fake_nvml.python(MIXED, SETUP)
    orders = {"PCI_BUS_ID": SLOW, "FASTEST_FIRST": FAST, "": FAST}
    listed = {
        order: shown(
            child,
            LD_LIBRARY_PATH=driver,
            FAKE_CUDA="ok",
            CUDA_VISIBLE_DEVICES="0",
            CUDA_DEVICE_ORDER=order,
        )(FIND)
        for order in orders
    }
    assert listed == {order: [device] for order, device in orders.items()}


def test_numbers_that_nobody_can_tell_grant_nothing(fake_nvml, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    child = fake_nvml.python(MIXED, SETUP)
    for _ in range(2):
        with pytest.raises(ProviderError, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
            child(FIND)


def test_a_gpu_that_falls_off_the_bus_shifts_no_number(fake_nvml, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    child = fake_nvml.python(FOUR, SETUP)
    assert child(FIND) == ["GPU-b1"]
    fake_nvml.change(FOUR.partition("\n")[2])
    assert child(FIND) == ["GPU-b1"]


# -- instances -------------------------------------------------------------------------

CUT = (
    h200(0, mig=1)
    + instance(0)
    + instance(1)
    + h200(1, mig=1)
    + instance(0, gpu=1)
    + shape(0, "1g.18gb")
)
PARTS = "{device.id: [part.uuid for part in device.mig] for device in provider.discover('box')}"


def test_of_a_cut_gpu_the_launchers_instances_are_found(fake_nvml) -> None:
    child = fake_nvml.python(CUT, SETUP)
    expected = {
        "MIG-01": {"GPU-0": ["MIG-01"]},
        "MIG-01,MIG-10": {"GPU-0": ["MIG-01"], "GPU-1": ["MIG-10"]},
        "MIG-GPU-0/8/0": {"GPU-0": ["MIG-01"]},
        "MIG-77,MIG-01": {},
        "1": {"GPU-1": ["MIG-10"]},
        "GPU-0": {"GPU-0": ["MIG-00", "MIG-01"]},
    }
    listed = {text: shown(child, CUDA_VISIBLE_DEVICES=text)(PARTS) for text in expected}
    assert listed == expected
    # Where only an instance was given, the GPU is not the launcher's to cut.
    shown(child, CUDA_VISIBLE_DEVICES="MIG-01")(FIND)
    assert child("provider.plan_room(['1g.18gb'], {}).steps") == ()


# -- device files ----------------------------------------------------------------------


def job(tmp_path: Path, *numbers: int, rules: str | None = None) -> dict[str, str]:
    """A host with the files of these GPUs, in a device control group with these
    rules.
    """
    dev, group = tmp_path / "dev", tmp_path / "cgroup" / "devices" / "job"
    dev.mkdir()
    group.mkdir(parents=True)
    for number in numbers:
        (dev / f"nvidia{number}").touch()
    if rules is not None:
        (group / "devices.list").write_text(rules)
    membership = tmp_path / "membership"
    membership.write_text("5:devices:/job\n0::/\n")
    return {
        "dev": str(dev),
        "root": str(tmp_path / "cgroup"),
        "membership": str(membership),
    }


def of_job(fake_nvml: Any, state: str, where: dict[str, str]) -> Any:
    child = fake_nvml.python(state, SETUP + FILES)
    child.run("provider = build(**where)", where=where)
    return child


def test_a_job_is_granted_what_its_device_group_lets_it_open(
    fake_nvml, tmp_path: Path
) -> None:
    where = job(tmp_path, 0, 1, 2, 3, rules="c 195:2 rwm\nc 195:255 rwm\n")
    assert of_job(fake_nvml, FOUR, where)(FIND) == ["GPU-c2"]


def test_numbers_count_what_may_be_opened(
    fake_nvml, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    where = job(tmp_path, 0, 1, 2, 3, rules="c 195:1 rwm\nc 195:3 rwm\n")
    assert of_job(fake_nvml, FOUR, where)(FIND) == ["GPU-d3"]


def test_a_container_is_granted_the_gpus_whose_files_it_has(
    fake_nvml, tmp_path: Path
) -> None:
    assert of_job(fake_nvml, FOUR, job(tmp_path, 1))(FIND) == ["GPU-b1"]


def test_without_any_file_the_driver_alone_decides(fake_nvml, tmp_path: Path) -> None:
    assert of_job(fake_nvml, FOUR, job(tmp_path))(FIND) == list(IDS)


def test_a_gpu_that_the_driver_refuses_is_not_there_for_this_job(fake_nvml) -> None:
    state = h200(0, lost=4) + h200(1)
    assert fake_nvml.python(state, SETUP)(FIND) == ["GPU-1"]


@pytest.mark.parametrize("rules", ["c 1:3 rwm\n", None])
def test_where_none_may_be_opened_each_says_so(
    fake_nvml, tmp_path: Path, rules: str | None
) -> None:
    refused = "".join(h200(i, lost=4) for i in range(2))
    where = job(tmp_path, 0, 1, rules=rules)
    state = h200(0) + h200(1) if rules else refused
    problems = of_job(fake_nvml, state, where)(
        "[device.problem for device in provider.discover('box')]"
    )
    assert len(problems) == 2
    assert all("may not be used by this user" in problem for problem in problems)


def test_the_files_of_a_lease_are_its_gpus_and_the_drivers_own(fake_nvml) -> None:
    child = fake_nvml.python(FOUR, SETUP)
    child.run(
        "from dataclasses import replace\n"
        "from jupyter_aistack.core.model.device import SliceKind\n"
        "from jupyter_aistack.core.model.plan import Grant, grant_to_lease\n"
        "from tests.fakes.nvml.states import share\n"
        "from tests.fakes.world import ask\n"
        "devices = {d.id: d for d in provider.discover('box')}\n"
        "slices = tuple(share('1/4', devices[i]) for i in ('GPU-b1', 'GPU-d3'))\n"
        "grant = Grant(request=ask('r'), slices=slices, expires_at=1.0)\n"
        "lease = grant_to_lease(grant, 'l-1', 1, 0.0)\n"
        "cut = replace(slices[0], kind=SliceKind.MIG)\n"
        "of_instance = replace(lease, slices=(cut,))\n"
    )
    files = child("provider.device_files(lease, devices)")
    assert files[:2] == ("/dev/nvidia1", "/dev/nvidia3")
    assert "/dev/nvidiactl" in files
    assert not {"/dev/nvidia0", "/dev/nvidia2"} & set(files)
    assert child("provider.device_files(of_instance, devices)") is None
