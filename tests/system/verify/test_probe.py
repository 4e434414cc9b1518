"""What the probe says of its process: devices of several vendors, a driver that hangs,
none.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.providers.nvidia import device_probe
from jupyter_aistack.system.verify import probe

SOURCE = Path(probe.__file__)

VENDOR = """
def ask_devices():
    return {answer!r}

def release():
    pass
"""
HANGS = "import time\ndef ask_devices(): time.sleep(60)\ndef release(): pass\n"


def device(uuid: str) -> dict[str, Any]:
    """What a vendor's driver answers that shows one device."""
    return {
        "visible": [uuid],
        "memory_total": 8,
        "memory_free": 6,
        "multiprocessors": 4,
    }


def see(*command: str, **environment: str) -> Any:
    """What the child prints, run as the provisioner runs it unless told otherwise."""
    env = {
        name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"
    }
    program = [sys.executable, "-I", "-S", *command]
    return json.loads(
        subprocess.check_output(program, env={**env, **environment}, timeout=30)
    )


def vendor(folder: Path, name: str, answer: dict[str, Any]) -> str:
    """The path of a probe of a vendor whose driver answers this."""
    path = folder / f"{name}.py"
    path.write_text(VENDOR.format(answer=answer))
    return str(path)


@pytest.mark.parametrize(
    "source",
    [SOURCE, Path(device_probe.__file__)],
    ids=lambda source: source.stem,
)
def test_it_uses_the_standard_library_only(source: Path) -> None:
    tree = ast.parse(source.read_text())
    modules = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    modules |= {
        alias.name
        for n in ast.walk(tree)
        if isinstance(n, ast.Import)
        for alias in n.names
    }
    assert {name.partition(".")[0] for name in modules} <= set(sys.stdlib_module_names)


def test_without_any_driver_it_tells_the_rest() -> None:
    seen = see(str(SOURCE), OMP_NUM_THREADS="3")
    assert (seen["visible"], seen["problem"]) == (None, "")
    assert seen["cores"] == sorted(os.sched_getaffinity(0))
    assert seen["threads"] == "3"


def test_devices_of_all_vendors_that_answer_are_shown(tmp_path: Path) -> None:
    paths = [
        vendor(tmp_path, "first", device("A")),
        vendor(tmp_path, "absent", {"problem": "there is no driver"}),
        vendor(tmp_path, "second", device("B")),
    ]
    seen = see(str(SOURCE), *paths)
    assert seen["visible"] == ["A", "B"]
    totals = (seen["memory_total"], seen["memory_free"], seen["multiprocessors"])
    assert totals == (16, 12, 8)
    assert "problem" not in seen


def test_where_no_driver_answers_the_reasons_are_given(tmp_path: Path) -> None:
    paths = [vendor(tmp_path, name, {"problem": f"no {name}"}) for name in ("x", "y")]
    seen = see(str(SOURCE), *paths)
    assert (seen["visible"], seen["problem"]) == (None, "no x; no y")


def test_driver_that_hangs_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "hangs.py"
    path.write_text(HANGS)
    code = (
        f"import runpy; probe = runpy.run_path({str(SOURCE)!r}); main = probe['main']; "
    )
    code += f"main.__globals__['DRIVER_SECONDS'] = 0.2; main([{str(path)!r}])"
    seen = see("-c", code)
    assert seen["visible"] is None
    assert "did not answer" in seen["problem"]
