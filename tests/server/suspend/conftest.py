"""Processes and helpers that the tests of suspension share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient
from tests.paths import FAKES


@pytest.fixture
def pipes() -> str:
    """Where a process is told to look for an MPS server."""
    return "/tmp/mps"


@pytest.fixture
def process(tmp_path: Path, driver: str, pipes: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has opened the driver's library, under an MPS server, with the
    socket of a Jupyter server.
    """
    code = f"import ctypes, time; ctypes.CDLL('{driver}/libcuda.so.1'); print(1, flush=True); time.sleep(600)"
    more = {"CUDA_MPS_PIPE_DIRECTORY": pipes, "AISTACK_SOCKET": str(tmp_path / "s")}
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **more},
    )
    assert child.stdout is not None
    assert child.stdout.readline()
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


FAKE = FAKES / "fake_checkpoint.py"


Make = Callable[..., CheckpointClient]


@pytest.fixture
def states(tmp_path: Path) -> Path:
    file = tmp_path / "states.json"
    file.write_text("{}")
    return file


@pytest.fixture
def helper(states: Path) -> Iterator[Make]:
    """A helper for which every process runs at first."""
    made: list[CheckpointClient] = []

    def make(**script: list[str]) -> CheckpointClient:
        made.append(
            CheckpointClient(
                (sys.executable, str(FAKE), str(states), json.dumps(script), "running")
            )
        )
        return made[-1]

    yield make
    for client in made:
        client.close()
