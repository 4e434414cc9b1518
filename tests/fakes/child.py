"""A Python process that a test asks for values.

The loader reads ``LD_LIBRARY_PATH`` when a process starts, so fakes of libraries serve
child processes only. A fresh interpreter that imports the providers takes a fifth of a
second and a fork of one a hundredth, so each library path has one nursery: a process
that has imported what nearly all children need, opened no library, and forks them.
"""

from __future__ import annotations

import functools
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.paths import ROOT

_PATH = "LD_LIBRARY_PATH"

# Runs in the nursery: forks a child for each socket it is handed, which first gets the
# child's variables. A child executes what it is sent in one namespace and answers with
# the value or the exception. It never returns to the nursery's loop.
_NURSERY = """
import os, pickle, signal, socket, sys
import jupyter_aistack.broker.broker
import jupyter_aistack.config
import jupyter_aistack.providers.amd.provider
import jupyter_aistack.providers.nvidia.provider

def serve(asked):
    questions = asked.makefile("rb")
    answers = asked.makefile("wb")
    os.environ.clear()
    os.environ.update(pickle.load(questions))
    names = {}
    while True:
        try:
            code, how, given = pickle.load(questions)
        except EOFError:
            return
        names.update(given)
        try:
            answer = (True, eval(compile(code, "<test>", how), names))
            pickled = pickle.dumps(answer)
        except Exception as error:
            pickled = pickle.dumps((False, error))
        answers.write(pickled)
        answers.flush()

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
line = socket.socket(fileno=os.dup(0))
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
while True:
    _, handles, _, _ = socket.recv_fds(line, 1, 1)
    if not handles:
        break
    asked = socket.socket(fileno=handles[0])
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        line.close()
        serve(asked)
        sys.exit()
    asked.close()
    line.sendall(pid.to_bytes(4, "big"))
"""


def write_state(file: Path, state: str) -> None:
    """Replace the state in one step, so that no reader sees half of it. Surrogates
    stand for bytes that are no text.
    """
    fresh = file.with_suffix(".new")
    fresh.write_text(state, encoding="utf-8", errors="surrogateescape")
    fresh.replace(file)


class Child:
    """A Python process; calling it evaluates an expression there, with the keyword
    arguments as names.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        variables = {**os.environ, **environment}
        self._line, other_end = socket.socketpair()
        with other_end:
            self.pid = _nursery(variables.get(_PATH, "")).fork(other_end)
        self._questions = self._line.makefile("wb")
        self._answers = self._line.makefile("rb")
        self._send(variables)

    def __call__(self, expression: str, **given: Any) -> Any:
        """The value of `expression` in the child; what it raises there is raised
        here.
        """
        return self._ask(expression, "eval", given)

    def run(self, statements: str, **given: Any) -> None:
        """Execute statements in the child."""
        self._ask(statements, "exec", given)

    def _ask(self, code: str, how: str, given: dict[str, Any]) -> Any:
        self._send((code, how, given))
        try:
            succeeded, value = pickle.load(self._answers)
        except EOFError:
            raise AssertionError(f"the child died over: {code}") from None
        if not succeeded:
            raise value
        return value

    def _send(self, value: object) -> None:
        pickle.dump(value, self._questions)
        self._questions.flush()

    def close(self) -> None:
        """End the child, and wait until it has ended."""
        self._questions.close()
        self._line.shutdown(socket.SHUT_WR)
        self._line.settimeout(30)
        self._answers.read()  # the end of the file is the end of the process
        self._answers.close()
        self._line.close()


class _Nursery:
    """A process that forks children for one library path; it ends with this process."""

    def __init__(self, library_path: str) -> None:
        self._line, other_end = socket.socketpair()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with other_end:
            subprocess.Popen(
                [sys.executable, "-c", _NURSERY],
                stdin=other_end.fileno(),
                env={**os.environ, "PYTHONPATH": path, _PATH: library_path},
            )

    def fork(self, other_end: socket.socket) -> int:
        """The pid of a new child that answers on a socket."""
        socket.send_fds(self._line, [b"f"], [other_end.fileno()])
        return int.from_bytes(self._line.recv(4), "big")


@functools.cache
def _nursery(library_path: str) -> _Nursery:
    return _Nursery(library_path)
