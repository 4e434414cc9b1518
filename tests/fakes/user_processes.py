"""Real processes of other users, for tests that run as root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from jupyter_aistack.system.command_lines import command_of

from .waiting import wait_until

BOB, EVE = 23001, 23002
"""Numbers of users without a name."""
IS_ROOT = os.getuid() == 0
NEEDS_ROOT = pytest.mark.skipif(not IS_ROOT, reason="needs root to be another user")
WAITS = ("sleep", "600")
STAYS = ("sh", "-c", "trap '' TERM; echo; while :; do read line; done")
"""A program that does not end when it is asked to."""


def _user(uid: int) -> dict[str, Any]:
    """How a process is made another user's; its own user needs no right for that."""
    is_own = uid == os.getuid()
    return {} if is_own else {"user": uid, "group": uid, "extra_groups": []}


class Processes:
    """Starts processes and ends them with the test."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, uid: int, command: Sequence[str] = WAITS, **environment: str
    ) -> subprocess.Popen[bytes]:
        """A process of a user, with this environment and no other."""
        process = subprocess.Popen(
            command,
            **_user(uid),
            env={"PATH": os.environ["PATH"], **environment},
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._started.append(process)
        # What it runs is told a moment after it has begun to.
        wait_until(lambda: command_of(process.pid).startswith(command[0]))
        if command is STAYS:
            assert process.stdout is not None
            process.stdout.readline()
        return process

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Real processes of users that have no name."""
    started = Processes()
    yield started
    started.close()
