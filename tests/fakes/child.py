"""A Python process that a test asks for values: the loader reads ``LD_LIBRARY_PATH``
when a process starts, so fakes of libraries serve child processes only.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

from tests.paths import ROOT

# Runs in the child: executes each line it is sent in one namespace and answers with the
# value or the exception. Its answers go to a private copy of stdout, so that a stray
# print in the code under test cannot corrupt them.
_CHILD = """
import os, pickle, sys
from base64 import b64decode, b64encode
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
names = {}
for line in sys.stdin:
    code, how, given = pickle.loads(b64decode(line))
    names.update(given)
    try:
        answer = (True, eval(compile(code, "<test>", how), names))
        pickled = pickle.dumps(answer)
    except Exception as error:
        pickled = pickle.dumps((False, error))
    answers.write(b64encode(pickled).decode() + "\\n")
    answers.flush()
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
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )

    def __call__(self, expression: str, **given: Any) -> Any:
        """The value of `expression` in the child; what it raises there is raised
        here.
        """
        return self._ask(expression, "eval", given)

    def run(self, statements: str, **given: Any) -> None:
        """Execute statements in the child."""
        self._ask(statements, "exec", given)

    def _ask(self, code: str, how: str, given: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(
            b64encode(pickle.dumps((code, how, given))).decode() + "\n"
        )
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the child died with status {self.process.wait()} over: {code}"
        succeeded, value = pickle.loads(b64decode(answer))
        if not succeeded:
            raise value
        return value

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()
