"""The connections of a socket that are open, and who may have one more.

Who has most of them makes room for who has fewer: users who come together cannot keep
another out, nor can a user with many uids of a user namespace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jupyter_aistack.exceptions import Refused


class Abortable(Protocol):
    """A connection that can be cut."""

    def abort(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """What one user, one connection, and all together may take of a socket.

    Attributes:
        connections: open at once, of all users; None for any number.
        connections_per_user: open at once, by uid; None for any number.
        write_seconds: how long a peer may leave an answer unread before its connection
            is cut; None for ever.
    """

    connections: int | None = None
    connections_per_user: int | None = None
    write_seconds: float | None = None


class OpenConnections:
    """Counts connections by uid. Use it from the event loop.

    Args:
        limits: how many there may be.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        # Of each uid the oldest first.
        self._by_user: dict[int, dict[Abortable, None]] = {}
        self._count = 0

    def admit(self, uid: int, connection: Abortable) -> Refused | None:
        """Take a connection in, if need be in place of the oldest of whoever has most;
        None, or why it is refused.
        """
        own = len(self._by_user.get(uid, ()))
        per_user = self._limits.connections_per_user
        if per_user is not None and own >= per_user:
            return Refused(
                f"your user has {per_user} connections open here, which is the most; "
                "close some"
            )
        most = self._limits.connections
        is_full = most is not None and self._count >= most
        if is_full and not self._make_room(own):
            return Refused(
                f"{most} connections are open here, which is the most, and nobody has "
                "more of them than you; close some"
            )
        self._by_user.setdefault(uid, {})[connection] = None
        self._count += 1
        return None

    def remove(self, uid: int, connection: Abortable) -> None:
        """A connection has ended. Removing twice is allowed."""
        connections = self._by_user.get(uid, {})
        if connection not in connections:
            return
        del connections[connection]
        self._count -= 1
        if not connections:  # users that have left are not kept
            del self._by_user[uid]

    def _make_room(self, own: int) -> bool:
        """Cut a connection of whoever has more than a user would have with `own` and
        one more; whether there was one.
        """
        uid, connections = max(self._by_user.items(), key=lambda item: len(item[1]))
        if len(connections) <= own + 1:
            return False
        oldest = next(iter(connections))
        self.remove(uid, oldest)
        oldest.abort()
        return True
