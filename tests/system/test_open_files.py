from __future__ import annotations

import subprocess
import sys

CODE = """
import resource, sys
from jupyter_aistack.system.open_files import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
print(allow_open_files(int(sys.argv[1])), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def allowed(wanted: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(wanted)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_process_allows_itself_what_it_may_and_never_less() -> None:
    assert allowed(100) == "100 (100, 128)"
    assert allowed(1000) == "128 (128, 128)"
    assert allowed(32) == "64 (64, 128)"
