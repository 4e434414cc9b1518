"""The client of the helper: starts it at first need, asks one question at a time, and
never ends it amid a question.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jupyter_aistack.exceptions import CheckpointFailed
from jupyter_aistack.providers.nvidia.visibility import VISIBILITY

from .refusals import CheckpointRefusal, refusal_named

COMMAND = (sys.executable, "-m", "jupyter_aistack.providers.nvidia.checkpoint.helper")


@dataclass(frozen=True, kw_only=True)
class CheckpointReply:
    """What the helper did.

    Attributes:
        state: of the processes now: running, locked, checkpointed, failed, mixed or
            unknown; empty for a probe.
        seconds: how long each step took.
    """

    state: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)


class CheckpointClient:
    """The one helper of a server. Safe to use from several threads: each waits for its
    turn.

    So there is at most one operation on all GPUs together. There is no time limit: an
    operation that was given up half way would leave the driver and the process at odds.
    The wait for a busy process has a time limit (`lock_seconds`).
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = tuple(command)
        self._turn = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._asked = 0

    def probe(self) -> str:
        """Why nothing can be suspended on this host; empty when the driver's checkpoint
        API answers.
        """
        try:
            self._ask({"op": "probe"})
        except CheckpointFailed as failed:
            return failed.message
        return ""

    def state(self, pid: int) -> str:
        """running, locked, checkpointed or failed.

        Raises:
            CheckpointFailed: the state cannot be determined.
        """
        return self._ask({"op": "state", "pid": pid}).state

    def suspend(self, *pids: int, lock_seconds: float = 5.0) -> CheckpointReply:
        """Move the GPU state of processes to host memory, all or none; state that is
        there already stays there.

        Args:
            lock_seconds: how long the work that each has submitted may take to end.

        Raises:
            CheckpointFailed: with ``step``, the ``code`` of why
                (:class:`~.refusals.CheckpointRefusal`) and the ``state`` that it has
                left the processes in; running means that all is as before. Where the
                helper ended over it there is ``helper_ended``.
        """
        return self._ask({"op": "suspend", "pids": pids, "lock_seconds": lock_seconds})

    def resume(self, *pids: int) -> CheckpointReply:
        """Move it back. Its bytes must have been reserved: a restore that fails cannot
        be tried again.

        Raises:
            CheckpointFailed: with ``step``, ``code`` and ``state``; anything but running or
                checkpointed means that it is lost.
        """
        return self._ask({"op": "resume", "pids": pids})

    def close(self) -> None:
        """Let the helper end, after what it does now."""
        with self._turn:
            if self._process is not None:
                self._end(self._process)
                self._process = None

    def _ask(self, question: dict[str, Any]) -> CheckpointReply:
        with self._turn:
            self._asked += 1
            answer = self._exchange(
                json.dumps({"id": self._asked, **question}) + "\n", str(question["op"])
            )
        if not answer.get("ok"):
            facts = {
                "step": answer.get("step", ""),
                "state": answer.get("state", "unknown"),
                "code": refusal_named(answer.get("code")),
            }
            raise CheckpointFailed(str(answer.get("message") or "") or None, **facts)
        return CheckpointReply(
            state=str(answer.get("state", "")), seconds=dict(answer.get("seconds", {}))
        )

    def _exchange(self, line: str, operation: str) -> dict[str, Any]:
        """The answer to one line; a helper that has ended is replaced at the next
        question, and this question fails with that reason.
        """
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
        except (OSError, ValueError) as error:
            self._process = None
            code = self._end(process)
            message = f"the checkpoint helper ended ({code}) during {operation}; ask for the state before going on"
            raise CheckpointFailed(
                message,
                step=operation,
                state="unknown",
                code=CheckpointRefusal.OTHER,
                helper_ended=True,
            ) from error
        return answer if isinstance(answer, dict) else {}

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            if self._process is not None:
                self._end(self._process)
            self._process = subprocess.Popen(  # a session of its own: signals to the server's group are not for it
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                # A client of MPS can neither checkpoint others nor restore them.
                env={**os.environ, **VISIBILITY.detached},
            )
        return self._process

    def _end(self, process: subprocess.Popen[str]) -> int:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # it has ended with a question unread
                    continue
        return process.wait()
