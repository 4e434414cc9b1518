"""A fake AMD driver library for tests: the real `amdsmi` package, unpatched, over a C
library that speaks its ABI.

The package binds some two hundred functions when it is imported; those that our C file
lacks are made here, from the names in the package, and answer "not supported".
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.nvml.plugin import Child, write_state

SOURCE = Path(__file__).with_name("fake_amdsmi.c")
FLAGS = ("-O1", "-fvisibility=hidden", "-shared", "-fPIC", "-Wl,-soname,libamd_smi.so")


@functools.cache
def library_folder() -> Path:
    """The folder that holds the compiled ``libamd_smi.so``; skips the test where it
    cannot be built.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    package = importlib.util.find_spec("amdsmi")
    if (
        compiler is None
        or sys.platform != "linux"
        or package is None
        or package.origin is None
    ):
        pytest.skip(
            "the fake AMD SMI needs Linux, a C compiler (gcc) and the package amdsmi"
        )
    folder = Path(tempfile.mkdtemp(prefix="fake-amdsmi-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    wrapper = Path(package.origin).with_name("amdsmi_wrapper.py").read_text()
    (folder / "unknown.h").write_text(_unknown(wrapper, SOURCE.read_text()))
    command = [
        compiler,
        str(SOURCE),
        "-I",
        str(folder),
        "-o",
        str(folder / "libamd_smi.so"),
        *FLAGS,
    ]
    subprocess.run(command, check=True)
    return folder


def _unknown(wrapper: str, ours: str) -> str:
    names = set(re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", wrapper))
    names -= set(re.findall(r"_CALL\((\w+),", ours))
    return "".join(
        f"EXPORT {name}(void) {{ return NOT_SUPPORTED; }}\n" for name in sorted(names)
    )


class FakeAMDSMI:
    """One fake driver: its state, and the child processes that see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[Child] = []

    def change(self, state: str) -> None:
        """Change the hardware under the running processes."""
        write_state(self.folder / "amdsmi.state", state)

    def environment(self, state: str | None) -> dict[str, str]:
        """Variables that make a new process see the driver described by `state`; None
        for no library.
        """
        nowhere = {"ROCM_HOME": str(self.folder), "ROCM_PATH": str(self.folder)}
        if state is None:
            return nowhere
        self.change(state)
        searched = [
            str(library_folder()),
            *filter(None, [os.environ.get("LD_LIBRARY_PATH")]),
        ]
        file = str(self.folder / "amdsmi.state")
        return {
            **nowhere,
            "FAKE_AMDSMI_STATE": file,
            "LD_LIBRARY_PATH": os.pathsep.join(searched),
        }

    def python(self, state: str | None, setup: str = "") -> Child:
        """A Python process that sees this driver, after running `setup` there."""
        child = Child(self.environment(state))
        self._children.append(child)
        child.run(setup)
        return child

    def close(self) -> None:
        for child in self._children:
            child.close()


@pytest.fixture
def fake_amdsmi(tmp_path: Path) -> Iterator[FakeAMDSMI]:
    """A fake AMD driver library for child processes; the test is skipped where it
    cannot be compiled.
    """
    library_folder()
    driver = FakeAMDSMI(tmp_path)
    yield driver
    driver.close()
