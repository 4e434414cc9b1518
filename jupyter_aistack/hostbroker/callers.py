"""Who asks the host broker: the process that the operating system names, or the one of
the same user that a Jupyter server speaks for.
"""

from __future__ import annotations

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.core.wire.protocol import SpokenFor
from jupyter_aistack.exceptions import PermissionDenied
from jupyter_aistack.system.peer import Peer
from jupyter_aistack.system.process_users import uid_of
from jupyter_aistack.system.processes import started_at
from jupyter_aistack.system.users import login_of

ROOT = 0


def check_peer(peer: Peer) -> None:
    """Refuse a peer of whom it cannot be told who it is.

    Raises:
        PermissionDenied: its user has no number here, or its process none.
    """
    if peer.is_ambiguous:
        raise PermissionDenied(
            f"uid {peer.uid} stands for every user without a number here: the host "
            "broker cannot tell who you are"
        )
    if peer.pid <= 0:
        raise PermissionDenied(
            "your process cannot be seen from the host broker's; run both in one "
            "process namespace"
        )


def check_same_process(caller: Caller, started: float | None) -> None:
    """Refuse a connection whose process has ended: what it has started may go on with
    it, and its number may be another user's process by now, or have been when it was
    first looked at.

    Args:
        caller: who connected.
        started: when that process started, as it was seen then; None where it could
            not be seen.

    Raises:
        PermissionDenied: it has ended, or is another user's.
    """
    if caller.pid is None:
        return
    is_same = started is None or started_at(caller.pid) == started
    if not is_same or uid_of(caller.pid) not in (None, caller.uid):
        raise PermissionDenied(
            f"process {caller.pid}, which has connected, has ended: connect anew"
        )


def caller_of(peer: Peer) -> Caller:
    """A peer that asks for itself."""
    return Caller(
        user=login_of(peer.uid),
        uid=peer.uid,
        pid=peer.pid,
        is_admin=peer.uid == ROOT,
    )


def caller_spoken_for(server: Caller, spoken_for: SpokenFor) -> Caller:
    """The process that a Jupyter server speaks for: believed as far as its processes
    are of the server's own user, which gives no right to anything of another's.

    Args:
        server: who says it.
        spoken_for: for whom, as it says.

    Raises:
        PermissionDenied: a process is not of the peer's user, or cannot be seen.
    """
    pids = {"pid": spoken_for.pid, "kernel_pid": spoken_for.kernel_pid}
    for name, pid in pids.items():
        if pid is not None and uid_of(pid) != server.uid:
            raise PermissionDenied(
                f"caller.{name}: {pid} is no process of {server.user}'s that the host "
                "broker can see; a server speaks for its own user alone",
                field=f"caller.{name}",
            )
    return Caller(
        user=server.user,
        uid=server.uid,
        pid=spoken_for.pid or server.pid,
        kernel_id=spoken_for.kernel_id,
        kernel_pid=spoken_for.kernel_pid,
        parent=spoken_for.parent,
        label=spoken_for.label,
        groups=server.groups,
    )
