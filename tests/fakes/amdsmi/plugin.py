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
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.child import Child, write_state
from tests.fakes.libraries import compiled

SOURCE = Path(__file__).with_name("fake_amdsmi.c")


@functools.cache
def library_folder() -> Path:
    """The folder that holds the compiled ``libamd_smi.so``; the test is skipped where it
    cannot be built.
    """
    package = importlib.util.find_spec("amdsmi")
    if package is None or package.origin is None:
        pytest.skip("the fake AMD SMI needs the package amdsmi")
    headers = Path(tempfile.mkdtemp(prefix="fake-amdsmi-headers-"))
    atexit.register(shutil.rmtree, headers, ignore_errors=True)
    wrapper = Path(package.origin).with_name("amdsmi_wrapper.py").read_text()
    (headers / "unknown.h").write_text(_unknown(wrapper, SOURCE.read_text()))
    name = "libamd_smi.so"
    return compiled(SOURCE, name, f"-Wl,-soname,{name}", "-I", str(headers))


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
