"""Which of some processes is the kernel, by how each was started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jupyter_aistack.system.kernel_processes import (
    _kernel_among,
    is_kernel,
    launched_as_kernel,
)

FILE = "/run/kernel-1.json"
KERNEL = f"python -m ipykernel_launcher -f {FILE}"


@pytest.mark.parametrize(
    ("commands", "kernel"),
    [
        ([KERNEL], 0),
        ([KERNEL, "python train.py"], 0),
        ([KERNEL, KERNEL], 0),
        ([KERNEL, "sh -c python train.py", "python train.py"], 0),
        ([f"uv run {KERNEL}", KERNEL], 1),
        ([f"conda run -n env {KERNEL}", "bash /tmp/tmp8x", KERNEL], 2),
        ([f"uv run {KERNEL}", KERNEL, KERNEL], 1),
        ([f"uv run {KERNEL}", KERNEL, "python train.py a.json"], 1),
        (["R --args IRkernel::main()", "python train.py"], 0),
    ],
)
def test_the_kernel_is_the_last_that_was_told_the_connection_file(
    commands: list[str], kernel: int
) -> None:
    words = [command.encode().split() for command in commands]
    assert _kernel_among(words) == kernel


def test_a_shell_that_was_given_one_long_word_is_a_wrapper_too() -> None:
    shell = [b"sh", b"-c", f"{KERNEL}; true".encode()]
    assert _kernel_among([shell, KERNEL.encode().split()]) == 1


LAUNCH = """
import os, subprocess, sys
from jupyter_aistack.system.kernel_processes import is_kernel, launched_as_kernel
launched = launched_as_kernel(os.getpid(), "k-1")
print(launched == int(os.environ.get("TOP") or os.getpid()), is_kernel(os.getpid(), launched))
if not os.environ.get("TOP"):
    sys.stdout.flush()
    env = {**os.environ, "TOP": str(os.getpid())}
    subprocess.run([sys.executable, *sys.orig_argv[1:3]], env=env, check=True)
"""


def test_a_kernel_without_a_server_is_known_by_its_environment() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, FILE],
        env={**os.environ, "AISTACK_KERNEL": "k-1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["True True", "True False"]


def test_a_process_of_no_kernel_descends_from_none() -> None:
    assert launched_as_kernel(os.getpid(), "no-such-kernel") is None
    assert not is_kernel(os.getpid(), 2**22 + 1)
