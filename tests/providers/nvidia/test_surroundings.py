"""What the host around a driver tells of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_aistack.exceptions import DriverNotFound, ProviderError
from jupyter_aistack.providers.nvidia.surroundings import Surroundings

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 2025\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  615.71.09  Release\n"
VERSION = "proc/driver/nvidia/version"
SETUP = """
from pathlib import Path
from jupyter_aistack.providers.nvidia.nvml import NVML
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from jupyter_aistack.providers.nvidia.surroundings import Surroundings
provider = GPUProvider(NVML(Surroundings(root=Path(root))), optional=True)
"""


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "version"), [(CLOSED, "580.65.06"), (OPEN, "615.71.09"), ("", "")]
)
def test_the_kernel_module_tells_its_version(
    tmp_path: Path, text: str, version: str
) -> None:
    write(tmp_path, **{VERSION: text})
    assert Surroundings(root=tmp_path).module_version == version


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"dev/nvidiactl": ""}, "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
        ({VERSION: CLOSED}, "not the driver's library libnvidia-ml.so.1"),
        (
            {"proc/sys/kernel/osrelease": "6.6-microsoft-WSL2", "dev/dxg": ""},
            "/usr/lib/wsl/lib",
        ),
        ({"etc/nv_tegra_release": "# R35"}, "JetPack 6"),
    ],
)
def test_a_gpu_without_its_drivers_library_is_a_problem_that_says_what_to_do(
    fake_nvml, tmp_path: Path, files: dict[str, str], words: str
) -> None:
    write(tmp_path / "host", **files)
    child = fake_nvml.python(None, f"root = {str(tmp_path / 'host')!r}\n{SETUP}")
    with pytest.raises(DriverNotFound, match=words):
        child("provider.discover('box')")


def test_a_host_without_a_gpu_has_none_and_no_problem(
    fake_nvml, tmp_path: Path
) -> None:
    child = fake_nvml.python(None, f"root = {str(tmp_path)!r}\n{SETUP}")
    assert child("provider.discover('box')") == ()


def test_a_library_of_another_driver_is_told_with_the_modules_version(
    fake_nvml, tmp_path: Path
) -> None:
    write(tmp_path / "host", **{VERSION: OPEN})
    state = "gpu uuid=GPU-a\nfail nvmlInit 18\n"
    child = fake_nvml.python(state, f"root = {str(tmp_path / 'host')!r}\n{SETUP}")
    with pytest.raises(ProviderError, match=r"its version is 615\.71\.09.*container"):
        child("provider.discover('box')")
    fake_nvml.change("gpu uuid=GPU-a\n")
    assert [device.id for device in child("provider.discover('box')")] == ["GPU-a"]
    # Replaced under a server that runs.
    fake_nvml.change("gpu uuid=GPU-a\nfail nvmlDeviceGetCount_v2 18\n")
    with pytest.raises(ProviderError, match="do not belong together"):
        child("provider.discover('box')")


def test_commands_are_for_the_host_where_they_cannot_be_run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not Surroundings().has_smi
    program = tmp_path / "nvidia-smi"
    program.touch(mode=0o755)
    assert Surroundings().has_smi
