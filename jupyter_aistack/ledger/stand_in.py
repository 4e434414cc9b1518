"""A ledger in memory for a user who shares with nobody and has nowhere to write one.

Leases that only one process can see must not be granted beside others: while one process
of a user keeps such a ledger, no other process of that user is given any.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from pathlib import Path

from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.system.one_process import claim
from jupyter_aistack.system.storage import (
    StorageProblem,
    nearest_folder,
    storage_problem,
)

from .memory import MemoryLedger
from .storage_words import storage_sentence

CLAIM = "aistack-ledger"
WAIT_SECONDS = 2.0
"""How long others are waited for that begin a ledger at the same time."""
_PAUSE_SECONDS = 0.01

log = logging.getLogger(__name__)
_lock = threading.Lock()
_own: list[StandInLedger] = []


class StandInLedger(MemoryLedger):
    """The leases of one process, which no other process sees.

    Args:
        why: what keeps them from being written down.
        held: the claim that makes this process the only one.
    """

    def __init__(self, why: str, held: socket.socket) -> None:
        super().__init__()
        self._why = why
        self._held = held
        self.pid = os.getpid()

    def problems(self) -> tuple[str, ...]:
        return (self._why,)

    def close(self) -> None:
        """Its leases end with it, and another process may keep them from now on."""
        self._held.close()
        with _lock:
            if self in _own:
                _own.remove(self)


def stand_in(path: Path, shown_url: str) -> StandInLedger | None:
    """A ledger in memory, where the ledger of this user alone is not begun at `path` and
    cannot be; None where it can be used.

    Raises:
        LedgerUnavailable: another process of this user keeps its leases in memory.
    """
    if sys.platform != "linux" or _is_begun(path):
        return None
    with _lock:
        for ledger in _own:
            if ledger.pid == os.getpid():
                return ledger
        problem = storage_problem(nearest_folder(path))
        held = _claimed(path, is_usable=problem is None)
        if held is None and _is_begun(path):
            return None
        if held is None:
            raise _unavailable(path, shown_url, problem)
        if problem is None:
            held.close()
            return None
        why = (
            f"ledger_url: {shown_url} {storage_sentence(problem, path)}; until then "
            "leases are kept in the memory of this process, and end with it"
        )
        log.warning("%s", why)
        ledger = StandInLedger(why, held)
        _own.append(ledger)
        return ledger


def _is_begun(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _claimed(path: Path, *, is_usable: bool) -> socket.socket | None:
    """The claim to be the only process; where the ledger can be begun, others that do so
    are waited for.
    """
    deadline = time.monotonic() + (WAIT_SECONDS if is_usable else 0)
    while (held := claim(CLAIM)) is None:
        if _is_begun(path) or time.monotonic() > deadline:
            return None
        time.sleep(_PAUSE_SECONDS)
    return held


def _unavailable(
    path: Path, shown_url: str, problem: StorageProblem | None
) -> LedgerUnavailable:
    why = "is not begun" if problem is None else storage_sentence(problem, path)
    return LedgerUnavailable(
        f"ledger_url: {shown_url} {why}; another process of this user keeps its leases "
        "in memory, where no other sees them: end that process, or work in it",
        field="ledger_url",
        ledger_url=shown_url,
        problem="" if problem is None else problem.value,
    )
