"""What the control program and the host tell of themselves."""

from __future__ import annotations

from pathlib import Path

from jupyter_aistack.providers.nvidia.capability_probe import known_protocols
from tests.fakes.mps.host import Stand


def test_the_control_program_tells_what_it_speaks(stand: Stand, tmp_path: Path) -> None:
    program = str(stand.folder / "bin" / "nvidia-cuda-mps-control")
    assert known_protocols(program) == {2, 3}
    stand.tell(protocols=2)
    assert known_protocols(program) == {2}
    assert known_protocols(str(tmp_path / "none")) == set()
