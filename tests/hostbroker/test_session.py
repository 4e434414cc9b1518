"""Connections begin in turn, as calls do."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.hostbroker import session
from jupyter_aistack.hostbroker.calls import THREADS, Calls
from jupyter_aistack.hostbroker.hub_accounts import HubAccounts
from jupyter_aistack.hostbroker.session import Sessions
from jupyter_aistack.system.peer import Peer
from jupyter_aistack.testing import simulated_broker

SLOW, QUICK = 1001, 1002


def test_a_login_that_takes_long_to_look_up_keeps_no_other_user_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_known = threading.Event()

    def caller_of(peer: Peer) -> Caller:
        if peer.uid == SLOW:
            is_known.wait(60)
        return Caller(user=f"uid-{peer.uid}", uid=peer.uid, pid=peer.pid)

    async def connect() -> None:
        calls = Calls(Service(simulated_broker("1xH100-80GB")))
        sessions = Sessions(calls, "box", HubAccounts())
        peers = [Peer(os.getpid(), SLOW)] * (2 * THREADS)
        slow = [asyncio.create_task(sessions.open(peer)) for peer in peers]
        await asyncio.sleep(0)
        try:
            await asyncio.wait_for(sessions.open(Peer(os.getpid(), QUICK)), 20)
        finally:
            is_known.set()
            await asyncio.gather(*slow)
            calls.close()

    monkeypatch.setattr(session, "caller_of", caller_of)
    asyncio.run(connect())
