"""What the control program and the host tell of themselves."""

from __future__ import annotations

from pathlib import Path

from jupyter_aistack.providers.nvidia.capability_probe import (
    CapabilityProbe,
    known_protocols,
)
from jupyter_aistack.providers.nvidia.dmem import DmemClient
from jupyter_aistack.providers.nvidia.mps import MPSManager
from jupyter_aistack.providers.nvidia.nvml import NVML
from jupyter_aistack.providers.nvidia.surroundings import Surroundings
from tests.fakes.mps.host import Stand


def test_windows_subsystem_has_no_mps(tmp_path: Path) -> None:
    release = tmp_path / "proc" / "sys" / "kernel" / "osrelease"
    release.parent.mkdir(parents=True)
    around = Surroundings(root=tmp_path)
    manager = MPSManager(root=lambda: tmp_path, interval=None)
    probe = CapabilityProbe(NVML(), manager, DmemClient(), surroundings=around)
    release.write_text("5.15.167.4-microsoft-standard-WSL2\n")
    assert "Windows Subsystem" in probe.refusal()
    release.write_text("6.1.0-30-amd64\n")
    assert probe.refusal() == ""


def test_the_control_program_tells_what_it_speaks(stand: Stand, tmp_path: Path) -> None:
    program = str(stand.folder / "bin" / "nvidia-cuda-mps-control")
    assert known_protocols(program) == {2, 3}
    stand.tell(protocols=2)
    assert known_protocols(program) == {2}
    assert known_protocols(str(tmp_path / "none")) == set()
