"""How long ``import jupyter_aistack`` takes, beside an import of JSON; and how long the
first ``%gpu request`` of a fresh kernel imports our own, beside an import of ipywidgets
there.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable

from tests.benchmarks.harness import Report, interleaved, main

FIRST_GPU = (
    "jupyter_aistack.magics",
    "jupyter_aistack.client.client",
    "jupyter_aistack.client.lease_guard",
    "jupyter_aistack.core.wire.preparations",
)
"""Imported together, all of our own that the first ``%gpu request`` of a kernel of a
Jupyter server takes; a test holds that it takes no more.
"""

KERNEL = "import IPython.core.magic, IPython.display, ipykernel.ipkernel"
"""What a kernel has loaded before its first cell."""

PROGRAM = """
import sys, time
{loaded}
before = set(sys.modules)
start = time.perf_counter()
import {modules}
print((time.perf_counter() - start) * 1000)
packages = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(len(packages - set(sys.stdlib_module_names) - {{"jupyter_aistack"}}))
"""


def imported(*modules: str, loaded: str = "") -> tuple[float, int]:
    """Milliseconds the imports took in a fresh interpreter, and how many packages of
    others came with them.

    Args:
        modules: what is imported.
        loaded: a statement that runs before, and is not measured.
    """
    code = PROGRAM.format(modules=", ".join(modules), loaded=loaded)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    milliseconds, packages = done.stdout.split()
    return float(milliseconds), int(packages)


def measure(rounds: int) -> Report:
    cases: dict[str, Callable[[], float]] = {
        "ours": lambda: imported("jupyter_aistack")[0],
        "json": lambda: imported("json")[0],
        "client": lambda: imported(*FIRST_GPU, loaded=KERNEL)[0],
        "ipywidgets": lambda: imported("ipywidgets", loaded=KERNEL)[0],
    }
    times = interleaved(cases, rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return Report(
        ratios={
            "vs_json": medians["ours"] / medians["json"],
            "client_vs_ipywidgets": medians["client"] / medians["ipywidgets"],
        },
        figures={
            "ms": medians["ours"],
            "json_ms": medians["json"],
            "client_ms": medians["client"],
            "ipywidgets_ms": medians["ipywidgets"],
            "third_party_packages": imported("jupyter_aistack")[1],
            "client_third_party_packages": imported(*FIRST_GPU, loaded=KERNEL)[1],
        },
        goals={
            "ms": 30,
            "client_ms": 150,
            "third_party_packages": 0,
            "client_third_party_packages": 0,
        },
    )


if __name__ == "__main__":
    main("import_time", measure, rounds=15)
