"""A CUDA driver for child processes, compiled from C."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.libraries import compiled


@pytest.fixture(scope="session")
def driver() -> str:
    """A folder with a ``libcuda.so.1`` of two devices."""
    source = Path(__file__).with_name("fake_cuda.c")
    return str(compiled(source, "libcuda.so.1", "-fvisibility=default"))
