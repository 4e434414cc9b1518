"""A CUDA driver for child processes, compiled from C."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a ``libcuda.so.1`` of two devices."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("the fake CUDA driver needs a C compiler (gcc)")
    folder = tmp_path_factory.mktemp("cuda")
    source = str(Path(__file__).with_name("fake_cuda.c"))
    subprocess.run(
        [compiler, "-shared", "-fPIC", source, "-o", str(folder / "libcuda.so.1")],
        check=True,
    )
    return str(folder)
