"""The threads in which calls are answered, a few of each user's at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.core.wire.verbs import READING_VERBS

P = ParamSpec("P")
T = TypeVar("T")
JSON = dict[str, Any]

THREADS = 8
MAX_AT_ONCE = 4
"""Calls of one user that are answered at once: others always find a free thread."""

AsyncVerb = Callable[[Mapping[str, Any], Caller], Awaitable[JSON]]
"""A verb that is answered on the event loop, because its answer may be held back."""


class Calls:
    """Answers calls. Use it from the event loop.

    Args:
        service: answers the verbs.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="aistack")
        self._async_verbs: dict[str, AsyncVerb] = {}
        self._turns: dict[tuple[int, str], asyncio.Semaphore] = {}
        self._waiting: Counter[tuple[int, str]] = Counter()
        self._on_change: Callable[[], None] = lambda: None

    def add_async_verb(self, verb: str, answer: AsyncVerb) -> None:
        """Have a verb answered on the event loop, and not in the threads."""
        self._async_verbs[verb] = answer

    async def call(self, verb: str, payload: Any, caller: Caller) -> JSON:
        """Answer one call. Raises `AIStackError`."""
        async_verb = self._async_verbs.get(verb)
        if async_verb is not None and isinstance(payload, Mapping):
            return await async_verb(payload, caller)
        try:
            return await self.run_for(caller, self.service.call, verb, payload, caller)
        finally:
            if verb not in READING_VERBS:
                self._on_change()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have `listener` called, on the event loop, after each call that may have
        changed something.
        """
        self._on_change = listener

    async def run_for(
        self,
        caller: Caller,
        function: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a synchronous function in the threads, in its user's turn."""
        # Users of a hub may share a uid.
        user = (caller.uid, caller.user)
        turn = self._turns.setdefault(user, asyncio.Semaphore(MAX_AT_ONCE))
        self._waiting[user] += 1
        try:
            async with turn:
                return await self.run(function, *args, **kwargs)
        finally:
            self._waiting[user] -= 1
            if not self._waiting[user]:
                del self._waiting[user], self._turns[user]

    async def run(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a synchronous function in the threads."""
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, partial(function, *args, **kwargs)
        )

    def close(self) -> None:
        """Let the calls that are being answered end, and take no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)
