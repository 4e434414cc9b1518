"""Whether those who hold leases and wait for them live, wherever they are."""

from __future__ import annotations

from collections.abc import Callable

from jupyter_aistack.core.model.process import Liveness
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.system.processes import is_local, liveness, started_at
from jupyter_aistack.system.users import current_user

SELF_HOLDING = (HolderKind.KERNEL, HolderKind.PROCESS)
"""Holders that use a lease by themselves; a worker or a run is another process than
the requester."""


class HolderLiveness:
    """Asks the system first, and the ledger where that cannot see.

    Args:
        ledger: on which processes show that they live.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._user = current_user()

    def __call__(self, holder: Holder) -> Liveness:
        """Whether a holder's process lives; unknown where nobody can tell.

        One in another PID namespace is taken to live as long as anybody lives there who
        would end its lease.
        """
        process = holder.process
        if process is None:
            return Liveness.UNKNOWN
        seen = liveness(process)
        is_hidden = holder.user != self._user and started_at(process.pid) is None
        if seen is Liveness.GONE or (seen is Liveness.ALIVE and not is_hidden):
            return seen
        shown = self._ledger.presence(process)
        if shown is Liveness.GONE or seen is Liveness.UNKNOWN:
            is_witnessed = shown is Liveness.UNKNOWN and self._has_witness(holder)
            return Liveness.ALIVE if is_witnessed else shown
        return seen

    def _has_witness(self, holder: Holder) -> bool:
        process = holder.process
        return process is not None and self._ledger.has_witness(process)


def holder_liveness(
    ledger: Ledger, is_alive: Callable[[int, float | None], bool] | None = None
) -> Callable[[Holder], Liveness]:
    """Tells whether a holder lives: by `is_alive`, which is given a pid and the time it
    started at, or without it by the system and the ledger.
    """
    if is_alive is None:
        return HolderLiveness(ledger)

    def by_pid(holder: Holder) -> Liveness:
        if holder.pid is None:
            return Liveness.UNKNOWN
        is_seen = is_alive(holder.pid, holder.pid_started_at)
        return Liveness.ALIVE if is_seen else Liveness.GONE

    return by_pid


def is_here(holder: Holder) -> bool:
    """Whether the pids of a holder mean the same processes here; True while it has
    none.
    """
    return holder.process is None or is_local(holder.process)


def root_pid(holder: Holder) -> int | None:
    """Root of the process tree that uses a lease; None while it is not known, and where
    its number means another process here.
    """
    if not is_here(holder):
        return None
    if holder.root_pid:
        return holder.root_pid
    return holder.pid if holder.kind in SELF_HOLDING else None
