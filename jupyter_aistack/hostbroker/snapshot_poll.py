"""The verb ``snapshot`` of a host broker: its answer is held back until there is
something new to show.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.snapshots import CHANGED_SECONDS, FRESH_SECONDS, Look
from jupyter_aistack.core.wire.values import integer_field, number_field

from .calls import JSON, Calls

MAX_WAIT_SECONDS = 30.0
"""How long an answer may be held back."""


class SnapshotPoll:
    """Answers those who follow the host.

    Args:
        calls: whose threads and verbs it uses.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._news = asyncio.Event()

    async def answer(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        """The host, as soon as it has another revision than ``after``, or when
        ``wait`` seconds are over.
        """
        after = integer_field({"after": 0, **payload}, "after")
        wait = number_field({"wait": 0, **payload}, "wait", most=MAX_WAIT_SECONDS) or 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            look = await self._look(caller)
            left = deadline - loop.time()
            if look.revision != after or left <= 0:
                return look.data
            await self._wait_for_news(min(left, FRESH_SECONDS))

    def note_change(self) -> None:
        """Something may have changed: those who wait look again."""
        self._news.set()
        self._news = asyncio.Event()

    async def _look(self, caller: Caller) -> Look:
        return await self._calls.run_for(
            caller, self._calls.service.snapshots.look, caller
        )

    async def _wait_for_news(self, seconds: float) -> None:
        # The time of each is its own: the event tells all who wait.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        # A look waits that long in its thread, which others may need.
        await asyncio.sleep(min(seconds, CHANGED_SECONDS))
