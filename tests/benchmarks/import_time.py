"""How long ``import jupyter_aistack`` takes, beside an interpreter that imports nothing
and one that imports JSON.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from tests.benchmarks.harness import Report, interleaved, main

PROGRAM = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
import {module}
print((time.perf_counter() - start) * 1000)
packages = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(len(packages - set(sys.stdlib_module_names) - {{"{module}"}}))
"""


def imported(module: str) -> tuple[float, int]:
    """Milliseconds the import took in a fresh interpreter, and how many packages of
    others came with it.
    """
    program = [sys.executable, "-c", PROGRAM.format(module=module)]
    lines = subprocess.run(
        program, capture_output=True, text=True, check=True
    ).stdout.split()
    return float(lines[0]), int(lines[1])


def measure(rounds: int) -> Report:
    found = interleaved(
        {
            name: lambda name=name: imported(name)[0]
            for name in ("jupyter_aistack", "json")
        },
        rounds,
    )
    ours, peer = (
        statistics.median(found[name]) for name in ("jupyter_aistack", "json")
    )
    figures = {
        "ms": ours,
        "json_ms": peer,
        "third_party_packages": imported("jupyter_aistack")[1],
    }
    return Report(
        ratios={"vs_json": ours / peer},
        figures=figures,
        goals={"ms": 30, "third_party_packages": 0},
    )


if __name__ == "__main__":
    main("import_time", measure, rounds=15)
