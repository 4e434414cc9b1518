"""Whose a connection is: the process that made it, and no later one of its number."""

from __future__ import annotations

import os

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.exceptions import PermissionDenied
from jupyter_aistack.hostbroker.callers import check_same_process
from jupyter_aistack.system.processes import started_at

PID = os.getpid()
GONE = 2**22
"""A number that no process has."""


def caller(*, uid: int = os.getuid(), pid: int = PID) -> Caller:
    return Caller(user="ann", uid=uid, pid=pid)


def test_a_process_that_runs_on_is_the_same() -> None:
    check_same_process(caller(), started_at(PID))


def test_one_that_cannot_be_seen_may_be_the_same() -> None:
    check_same_process(caller(pid=GONE), None)


def test_a_later_process_of_its_number_is_refused() -> None:
    with pytest.raises(PermissionDenied, match=f"process {PID}, which has connected"):
        check_same_process(caller(), 1.0)


@pytest.mark.parametrize("started", [None, started_at(PID)], ids=["unknown", "known"])
def test_a_process_of_another_user_is_refused(started: float | None) -> None:
    """It took the number before the one that connected was looked at."""
    with pytest.raises(PermissionDenied, match="has ended"):
        check_same_process(caller(uid=os.getuid() + 1), started)
