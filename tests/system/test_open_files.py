"""A process gives itself as many files as it may."""

from __future__ import annotations

import subprocess
import sys

ASK = """
import resource, sys
most = (int(sys.argv[1]), int(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_NOFILE, most)
from jupyter_aistack.system.open_files import raise_open_files
print(raise_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised_to_the_hard_limit() -> None:
    command = [sys.executable, "-c", ASK, "64", "128"]
    assert subprocess.check_output(command, text=True).split() == ["128"] * 3
