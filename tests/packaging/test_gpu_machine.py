"""A machine with a GPU and no network has torch, pytest and what the package needs: the
tests on a GPU must run with no more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT

MISSING = (
    *("pytest_jupyter", "pytest_timeout", "xdist", "hypothesis", "playwright"),
    *("dask", "distributed", "mlflow", "jupyterlab", "anywidget", "schemathesis"),
)
"""Libraries of other tests and of the extras."""

HIDE = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def hidden(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {missing!r} else find(name, path, target)
PathFinder.find_spec = classmethod(hidden)
"""


def run_pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Pytest in a Python that has none of those libraries."""
    (folder / "sitecustomize.py").write_text(HIDE.format(missing=MISSING))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_tests_on_a_gpu_are_collected_without_the_libraries_of_others(
    tmp_path: Path,
) -> None:
    done = run_pytest(tmp_path, "-m", "gpu", "--collect-only")
    assert done.returncode == 0, done.stdout + done.stderr
    tests = [line for line in done.stdout.splitlines() if "::" in line]
    assert tests
    assert all("test_provider_on_gpu.py::test_" in line for line in tests)


def test_no_other_file_has_tests_that_need_a_gpu() -> None:
    files = [
        path.name
        for path in (ROOT / "tests").rglob("*.py")
        if "pytest" + ".mark.gpu" in path.read_text()
    ]
    assert files == ["test_provider_on_gpu.py"]
