"""A fake NVIDIA driver for tests: the real `nvidia-ml-py`, unpatched, over a C library
that speaks NVML's ABI.

The loader reads ``LD_LIBRARY_PATH`` when a process starts, so the fake serves child
processes only. `FakeNVML.python` starts one and hands back a function that evaluates
expressions in it; values and errors come back as they are.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT

SOURCE = Path(__file__).with_name("fake_nvml.c")
FLAGS = (
    "-O1",
    "-fvisibility=hidden",
    "-shared",
    "-fPIC",
    "-Wl,-soname,libnvidia-ml.so.1",
    "-lpthread",
)

# Runs in the child: executes each line it is sent in one namespace and answers with the
# value or the exception. Its answers go to a private copy of stdout, so that a stray
# print in the code under test cannot corrupt them.
_CHILD = """
import os, pickle, sys
from base64 import b64decode, b64encode
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
names = {}
for line in sys.stdin:
    code, how, given = pickle.loads(b64decode(line))
    names.update(given)
    try:
        answer = (True, eval(compile(code, "<test>", how), names))
        pickled = pickle.dumps(answer)
    except Exception as error:
        pickled = pickle.dumps((False, error))
    answers.write(b64encode(pickled).decode() + "\\n")
    answers.flush()
"""


@functools.cache
def library_folder() -> Path:
    """The folder that holds the compiled ``libnvidia-ml.so.1``; skips the test where it
    cannot be built.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the fake NVML needs Linux and a C compiler (gcc)")
    folder = Path(tempfile.mkdtemp(prefix="fake-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run(
        [compiler, str(SOURCE), "-o", str(folder / "libnvidia-ml.so.1"), *FLAGS],
        check=True,
    )
    return folder


def write_state(file: Path, state: str) -> None:
    """Replace the state in one step, so that no reader sees half of it."""
    fresh = file.with_suffix(".new")
    fresh.write_text(state)
    fresh.replace(file)


def fake_nvml_environment(folder: Path, state: str | None) -> dict[str, str]:
    """Variables that make a new process see the driver described by `state` (see
    ``fake_nvml.c``); None for no driver.

    The state is kept in ``nvml.state`` inside `folder`; replace it with `write_state`
    to change the hardware live. Add the variables to ``os.environ`` or to whatever
    starts the process; they are inherited by its children.
    """
    if state is None:
        return {"LD_LIBRARY_PATH": str(_folder_without_library(folder))}
    file = folder / "nvml.state"
    write_state(file, state)
    searched = [
        str(library_folder()),
        *filter(None, [os.environ.get("LD_LIBRARY_PATH")]),
    ]
    return {"FAKE_NVML_STATE": str(file), "LD_LIBRARY_PATH": os.pathsep.join(searched)}


def _folder_without_library(folder: Path) -> Path:
    """A folder whose library cannot be loaded, which hides a real driver too where
    there is one.
    """
    unloadable = folder / "no-driver" / "libnvidia-ml.so.1"
    unloadable.parent.mkdir(exist_ok=True)
    unloadable.touch()
    return unloadable.parent


class Child:
    """A Python process; calling it evaluates an expression there, with the keyword
    arguments as names.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )

    def __call__(self, expression: str, **given: Any) -> Any:
        """The value of `expression` in the child; what it raises there is raised
        here.
        """
        return self._ask(expression, "eval", given)

    def run(self, statements: str, **given: Any) -> None:
        """Execute statements in the child."""
        self._ask(statements, "exec", given)

    def _ask(self, code: str, how: str, given: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(
            b64encode(pickle.dumps((code, how, given))).decode() + "\n"
        )
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the child died with status {self.process.wait()} over: {code}"
        succeeded, value = pickle.loads(b64decode(answer))
        if not succeeded:
            raise value
        return value

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


class FakeNVML:
    """One fake driver: its state, and the child processes that see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[Child] = []

    def environment(self, state: str | None) -> dict[str, str]:
        """See `fake_nvml_environment`."""
        return fake_nvml_environment(self.folder, state)

    def change(self, state: str) -> None:
        """Change the hardware under the running processes."""
        write_state(self.folder / "nvml.state", state)

    def python(self, state: str | None, setup: str = "") -> Child:
        """A Python process that sees this driver (None: none at all), after running
        `setup` there.
        """
        child = Child(self.environment(state))
        self._children.append(child)
        child.run(setup)
        return child

    def close(self) -> None:
        for child in self._children:
            child.close()


@pytest.fixture
def fake_nvml(tmp_path: Path) -> Iterator[FakeNVML]:
    """A fake NVIDIA driver for child processes; the test is skipped where it cannot be
    compiled.
    """
    library_folder()
    driver = FakeNVML(tmp_path)
    yield driver
    driver.close()
