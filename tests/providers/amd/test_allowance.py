"""The AMD GPUs of a launcher: as it was shown them, and as its device files let it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.providers.amd.test_provider import SETUP, mi300x

IDS = tuple(f"GPU-00000000000000a{n}" for n in range(4))
FIND = "[device.id for device in provider.discover('box')]"
FILES = """
import os
from pathlib import Path
from jupyter_aistack.providers.amd.allowance import AMDAllowance
from jupyter_aistack.providers.amd.amdsmi import AMDSMI
from jupyter_aistack.system.device_files import DeviceFiles
NAMES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
smi = AMDSMI()
def build(files=None, **environment):
    for name in NAMES:
        os.environ.pop(name, None)
    os.environ |= environment
    return AMDProvider(smi, allowance=AMDAllowance(smi, files=files))
"""


def four(**more: object) -> str:
    return "".join(mi300x(n, **more) for n in range(4))


def listed(child: Any, **environment: str) -> tuple[str, ...]:
    child.run("provider = build(**environment)", environment=environment)
    return tuple(child(FIND))


def test_only_what_the_launcher_sees_is_found(fake_amdsmi) -> None:
    child = fake_amdsmi.python(four(), SETUP + FILES)
    assert listed(child) == IDS
    for text, ids in {
        "2": IDS[2:3],
        "0,3": (IDS[0], IDS[3]),
        IDS[1]: IDS[1:2],
        f"0,{IDS[1]}": IDS[:2],
        "": (),
        "-1": (),
        "1,9,2": IDS[1:2],
    }.items():
        assert listed(child, ROCR_VISIBLE_DEVICES=text) == ids, text


def test_hip_numbers_anew_what_rocr_leaves(fake_amdsmi) -> None:
    child = fake_amdsmi.python(four(), SETUP + FILES)
    rocr = {"ROCR_VISIBLE_DEVICES": "1,3"}
    assert listed(child, **rocr, HIP_VISIBLE_DEVICES="1") == IDS[3:]
    assert listed(child, **rocr, CUDA_VISIBLE_DEVICES="0") == IDS[1:2]
    both = {"HIP_VISIBLE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "0"}
    assert listed(child, **both) == IDS[2:3]


def test_a_list_of_opencls_is_a_launchers_choice_where_there_is_no_other(
    fake_amdsmi,
) -> None:
    child = fake_amdsmi.python(four(), SETUP + FILES)
    assert listed(child, GPU_DEVICE_ORDINAL="2") == IDS[2:3]
    assert listed(child, GPU_DEVICE_ORDINAL="") == ()
    both = {"ROCR_VISIBLE_DEVICES": "2", "GPU_DEVICE_ORDINAL": "2"}
    assert listed(child, **both) == IDS[2:3]


def test_numbers_are_hips_and_not_the_librarys(fake_amdsmi) -> None:
    turned = "".join(mi300x(n, hip=str(3 - n)) for n in range(4))
    child = fake_amdsmi.python(turned, SETUP + FILES)
    assert listed(child, HIP_VISIBLE_DEVICES="0") == IDS[3:]


def test_a_job_is_granted_what_its_device_group_lets_it_open(
    fake_amdsmi, tmp_path: Path
) -> None:
    group = tmp_path / "cgroup" / "devices" / "job"
    group.mkdir(parents=True)
    (group / "devices.list").write_text("c 226:129 rw\n")
    (tmp_path / "membership").write_text("5:devices:/job\n")
    (tmp_path / "dev" / "dri").mkdir(parents=True)
    for number in (128, 129):
        (tmp_path / "dev" / "dri" / f"renderD{number}").touch()
    state = mi300x(0, render=128) + mi300x(1, render=129) + mi300x(2, render=130)
    child = fake_amdsmi.python(state, SETUP + FILES)
    child.run(
        "folder = Path(where)\n"
        "provider = build(DeviceFiles(folder / 'dev', folder / 'cgroup', folder / 'membership'))",
        where=str(tmp_path),
    )
    assert child(FIND) == [IDS[1]]
