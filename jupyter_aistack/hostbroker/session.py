"""One connection with the host broker: first lines, then calls."""

from __future__ import annotations

import os
from typing import Any

from jupyter_aistack._version import __version__
from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.line_server import LineSession
from jupyter_aistack.broker.api.refusals import CONNECT
from jupyter_aistack.core.wire.protocol import (
    BrokerGreeting,
    Call,
    choose_protocol,
    read_call,
    read_client_greeting,
)
from jupyter_aistack.exceptions import PermissionDenied
from jupyter_aistack.system.peer import Peer
from jupyter_aistack.system.processes import started_at

from .callers import (
    caller_of,
    caller_spoken_for,
    check_peer,
    check_same_process,
)
from .calls import Calls
from .hub_accounts import HubAccounts

JSON = dict[str, Any]


class Sessions:
    """Opens the sessions of peers.

    Args:
        calls: answers their calls.
        host_name: what the machine is called, for people.
        hub_accounts: who acts for users of a hub.
    """

    def __init__(self, calls: Calls, host_name: str, hub_accounts: HubAccounts) -> None:
        self.calls = calls
        self.host_name = host_name
        self.hub_accounts = hub_accounts

    def follow_hub(self, hub_accounts: HubAccounts) -> None:
        """Go by other settings from now on; what is known of tokens is kept where they
        are the same.
        """
        if not hub_accounts.is_same(self.hub_accounts):
            self.hub_accounts = hub_accounts

    async def open(self, peer: Peer) -> LineSession:
        """The session of a peer.

        Raises:
            PermissionDenied: it cannot be told who it is.
        """
        try:
            check_peer(peer)
        except PermissionDenied as error:
            who = f"uid {peer.uid}, pid {peer.pid}"
            self.calls.service.refusals.record(CONNECT, who, error.message)
            raise
        # In a thread, and a few at once: a login may come from a directory server.
        nameless = Caller(user="", uid=peer.uid)
        own = await self.calls.run_for(nameless, caller_of, peer)
        return PeerSession(self, own)


class PeerSession(LineSession):
    """What one peer says.

    Args:
        sessions: what all of them share.
        own: who it is.
    """

    def __init__(self, sessions: Sessions, own: Caller) -> None:
        self._sessions = sessions
        self._own = own
        self._started = None if own.pid is None else started_at(own.pid)
        self._protocol: int | None = None
        self._token = ""

    async def answer(self, message: JSON) -> JSON:
        if self._protocol is None:
            return self._greet(message)
        call = read_call(message)
        caller = await self._caller(call)
        answer = await self._sessions.calls.call(call.verb, call.payload, caller)
        return {"result": answer}

    def _greet(self, message: JSON) -> JSON:
        greeting = read_client_greeting(message)
        self._protocol = choose_protocol(greeting, broker=__version__)
        self._token = greeting.token
        return BrokerGreeting(
            protocol=self._protocol,
            broker=__version__,
            host=self._sessions.host_name,
            pid=os.getpid(),
        ).to_dict()

    async def _caller(self, call: Call) -> Caller:
        sessions = self._sessions
        check_same_process(self._own, self._started)
        with sessions.calls.service.refusals.recorded(call.verb, self._own):
            # Anew for each call: a token may have been revoked since the last one.
            speaker = await sessions.hub_accounts.caller_for(self._own, self._token)
            if call.caller is None:
                return speaker
            return caller_spoken_for(speaker, call.caller)
