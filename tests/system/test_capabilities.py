from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jupyter_aistack.system.capabilities import capabilities

CODE = """
import os
from pathlib import Path
os.setuid(23001)
line = [l for l in Path("/proc/self/status").read_text().splitlines() if "CapEff" in l]
print(line[0].split()[1])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root has rights to lose")
def test_an_ordinary_user_has_none_and_root_has_some() -> None:
    assert capabilities()
    done = subprocess.run(
        [sys.executable, "-S", "-c", CODE], capture_output=True, text=True, check=True
    )
    assert int(done.stdout, 16) == 0
