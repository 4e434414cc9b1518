"""One connection with the host broker: first lines, then calls."""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Any

from jupyter_aistack._version import __version__
from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.line_server import LineSession
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.core.wire.protocol import (
    BrokerGreeting,
    Call,
    choose_protocol,
    read_call,
    read_client_greeting,
)
from jupyter_aistack.exceptions import PermissionDenied
from jupyter_aistack.system.peer import Peer

from .callers import caller_of, caller_spoken_for, check_peer
from .calls import Calls

JSON = dict[str, Any]
log = logging.getLogger("jupyter_aistack")


class Sessions:
    """Opens the sessions of peers.

    Args:
        calls: answers their calls.
        host_name: what the machine is called, for people.

    Attributes:
        refused: calls that were refused because of who asked, by uid.
    """

    def __init__(self, calls: Calls, host_name: str) -> None:
        self.calls = calls
        self.host_name = host_name
        self.refused: Counter[int] = Counter()

    async def open(self, peer: Peer) -> LineSession:
        """The session of a peer.

        Raises:
            PermissionDenied: it cannot be told who it is.
        """
        check_peer(peer)
        # In a thread: the login may come from a directory server.
        return PeerSession(self, peer, await self.calls.run(caller_of, peer))

    def note_refused(self, peer: Peer, verb: str, why: str) -> None:
        """Count and log a call that is refused because of who asks."""
        self.refused[peer.uid] += 1
        count = self.refused[peer.uid]
        # A user must not fill the log: the 1st, 2nd, 4th, 8th, ... is written down.
        if not count & (count - 1):
            log.warning(
                "uid %d, process %d: %s refused (%d so far): %s",
                peer.uid,
                peer.pid,
                printable(verb)[:64],
                count,
                printable(why),
            )


class PeerSession(LineSession):
    """What one peer says.

    Args:
        sessions: what all of them share.
        peer: its process and uid.
        own: who it is.
    """

    def __init__(self, sessions: Sessions, peer: Peer, own: Caller) -> None:
        self._sessions = sessions
        self._peer = peer
        self._own = own
        self._protocol: int | None = None

    async def answer(self, message: JSON) -> JSON:
        if self._protocol is None:
            return self._greet(message)
        call = read_call(message)
        try:
            answer = await self._sessions.calls.call(
                call.verb, call.payload, self._caller(call)
            )
        except PermissionDenied as error:
            self._sessions.note_refused(self._peer, call.verb, error.message)
            raise
        return {"result": answer}

    def _greet(self, message: JSON) -> JSON:
        greeting = read_client_greeting(message)
        self._protocol = choose_protocol(greeting, broker=__version__)
        return BrokerGreeting(
            protocol=self._protocol,
            broker=__version__,
            host=self._sessions.host_name,
            pid=os.getpid(),
        ).to_dict()

    def _caller(self, call: Call) -> Caller:
        if call.caller is None:
            return self._own
        return caller_spoken_for(self._own, call.caller)
