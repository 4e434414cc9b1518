"""What is awaited to its end, whatever becomes of the caller."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_aistack.system.completion import completed, in_thread


async def test_a_result_or_an_error_is_passed_on() -> None:
    assert await in_thread(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


async def test_a_caller_cancelled_twice_still_waits_for_the_end() -> None:
    end = asyncio.get_running_loop().create_future()
    told: list[str] = []
    waiting = asyncio.ensure_future(completed(end, on_cancel=lambda: told.append("c")))
    for _ in range(2):
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    end.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert told == ["c", "c"]


async def test_a_future_that_was_cancelled_itself_is_no_reason_to_wait() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await completed(future)
