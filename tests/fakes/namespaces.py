"""Python in namespaces of its own, as in a container: other numbers for its processes,
another name for its host.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.paths import ROOT

WITH_PROC = ("--mount-proc",)


@functools.cache
def why_no_namespaces() -> str:
    """Why this machine makes no namespaces; empty where it does."""
    try:
        tried = subprocess.run(
            ["unshare", "--fork", "--pid", "--uts", "--mount-proc", "true"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if tried.returncode == 0 else tried.stderr.strip()


needs_namespaces = pytest.mark.skipif(
    bool(why_no_namespaces()), reason="PID and UTS namespaces are not allowed here"
)


class Container:
    """A Python process in namespaces of its own; it answers what it is asked.

    Attributes:
        process: the process that made the namespaces; the first process in them is its
            child and ends with it.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, expression: str) -> Any:
        """The value of an expression in it, as JSON brings it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "it has ended"
        return json.loads(answer)


_ANSWERS = """
import json, sys
scope = {}
for line in sys.stdin:
    try:
        value = eval(line, scope)
    except SyntaxError:
        exec(line, scope)
        value = None
    print(json.dumps(value), flush=True)
"""


@contextmanager
def container(
    *setup: str,
    options: tuple[str, ...] = WITH_PROC,
    hostname: str = "lab-7f3a",
    env: dict[str, str] | None = None,
) -> Iterator[Container]:
    """A Python process in PID and UTS namespaces of its own.

    Args:
        setup: statements it begins with.
        options: more for ``unshare``.
        hostname: what its host is called there.
        env: variables it gets beside those of this process.
    """
    inside = f'hostname {hostname} && exec "$0" -u -c "$1"'
    making = ["unshare", "--fork", "--kill-child", "--pid", "--uts", *options]
    process = subprocess.Popen(
        [*making, "sh", "-c", inside, sys.executable, _ANSWERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )
    made = Container(process)
    try:
        for statement in setup:
            made.ask(statement)
        yield made
    finally:
        process.kill()
        process.communicate()


def first_child(pid: int) -> int:
    """The only child of a process, as it is numbered here."""
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return int(children.read())
