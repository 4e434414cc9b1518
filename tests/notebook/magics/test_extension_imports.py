"""What the first ``%gpu`` of a kernel imports, which its user waits for."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.import_time import FIRST_GPU
from tests.paths import DATA

OWN = "sorted(name for name in sys.modules if name.startswith('jupyter_aistack.'))"

REQUEST = f"""
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from jupyter_aistack.client import client
from jupyter_aistack.magics import AIStackMagics

samples = json.load(open({str(DATA / "wire_samples.json")!r}))
lease = {{**samples["leases"][0], "active_at": None}}  # it is new
waiting = samples["queue"][0]
granted = {{"request": waiting, "lease": lease, "prepared": None, "advice": None}}
mine = [{{"owner": "", "leases": [], "requests": [], "prepared": {{}}}},
        {{"owner": "", "leases": [lease], "requests": [], "prepared": {{lease["id"]: samples["prepared"]}}}}]
answers = {{"request": granted, "listed": {{"listed": None}}, "activate": lease,
           "host": samples["host"], "usage": samples["usage"]}}

class Transport:
    kind = "socket"
    def call(self, verb, payload):
        return mine.pop(0) if verb == "mine" else answers[verb]

connected = client.Client(Transport())
shell = InteractiveShell()
AIStackMagics(shell, lambda: connected).register()
assert "This kernel holds" in str(shell.run_line_magic("gpu", "request cpu:1"))
"""


def own_modules(code: str) -> list[str]:
    """The modules of the package that are loaded after `code` in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*{OWN})"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_the_benchmark_imports_all_that_the_first_request_does() -> None:
    measured = own_modules(f"import {', '.join(FIRST_GPU)}")
    assert set(own_modules(REQUEST)) <= set(measured)


def test_the_client_needs_nothing_of_the_granting_side() -> None:
    rooms = {
        name.split(".")[1] for name in own_modules(f"import {', '.join(FIRST_GPU)}")
    }
    assert rooms <= {
        "_version",
        "client",
        "core",
        "exceptions",
        "magics",
        "notebook",
        "system",
    }
