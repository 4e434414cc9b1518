"""A fake NVIDIA driver for tests: the real `nvidia-ml-py`, unpatched, over a C library
that speaks NVML's ABI.

The loader reads ``LD_LIBRARY_PATH`` when a process starts, so the fake serves child
processes only. `FakeNVML.python` starts one and hands back a function that evaluates
expressions in it; values and errors come back as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.child import Child, write_state
from tests.fakes.libraries import compiled

SOURCE = Path(__file__).with_name("fake_nvml.c")


def library_folder() -> Path:
    """The folder that holds the compiled ``libnvidia-ml.so.1``."""
    name = "libnvidia-ml.so.1"
    return compiled(SOURCE, name, f"-Wl,-soname,{name}", "-lpthread")


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
