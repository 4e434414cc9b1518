"""Awaiting what must come to its end, also by callers that are cancelled meanwhile: a
lease that was asked for and forgotten would be nobody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def _do_nothing() -> None:
    pass


async def completed(
    future: asyncio.Future[T], on_cancel: Callable[[], None] = _do_nothing
) -> T:
    """The result of a future or task.

    Args:
        future: what to wait for.
        on_cancel: called when the caller is cancelled; it may hasten the future's end.

    Raises:
        asyncio.CancelledError: the caller was cancelled; the future is done by then.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
            on_cancel()
    if cancelled is None:
        return future.result()
    if not future.cancelled():
        future.exception()  # asyncio complains of errors that nobody has looked at
    raise cancelled


async def in_thread(function: Callable[[], T]) -> T:
    """What a function returns that runs in a thread, which cannot be cancelled."""
    try:
        # No task of its own: all tasks are cancelled when a loop ends.
        call = asyncio.get_running_loop().run_in_executor(None, function)
    except RuntimeError:
        # The interpreter ends and starts no more threads: then on the loop itself.
        return function()
    return await completed(call)
