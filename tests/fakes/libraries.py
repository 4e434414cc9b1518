"""C libraries that stand in for drivers, compiled once for a run of the tests."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

FLAGS = ("-O1", "-fvisibility=hidden", "-shared", "-fPIC")


@functools.cache
def compiled(source: Path, name: str, *options: str) -> Path:
    """The folder that holds the library `name`, made of `source`; the test is skipped
    where it cannot be built.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip(f"{source.name} needs Linux and a C compiler (gcc)")
    folder = Path(tempfile.mkdtemp(prefix=f"{source.stem.replace('_', '-')}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run(
        [compiler, str(source), "-o", str(folder / name), *FLAGS, *options],
        check=True,
    )
    return folder
