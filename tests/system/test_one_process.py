"""A name that one process holds, and that its end frees."""

from __future__ import annotations

import subprocess
import sys
import uuid

from jupyter_aistack.system.one_process import claim

HOLDER = """
import sys
from jupyter_aistack.system.one_process import claim
held = claim(sys.argv[1])
print(held is not None, flush=True)
sys.stdin.read()
"""


def test_another_process_holds_it_until_it_ends() -> None:
    name = f"aistack-test-{uuid.uuid4().hex}"
    command = [sys.executable, "-c", HOLDER, name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "True\n"
        assert claim(name) is None
        other.kill()
    held = claim(name)
    assert held is not None
    assert claim(name) is None
    held.close()
