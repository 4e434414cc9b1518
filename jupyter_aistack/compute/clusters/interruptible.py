"""A Dask cluster whose start and end may be interrupted at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import types
from collections.abc import Generator
from typing import Any, Self, TypeVar

from distributed import SpecCluster, Status

from jupyter_aistack.exceptions import ClusterError
from jupyter_aistack.system.completion import completed
from jupyter_aistack.system.interrupts import DeferredInterrupts

from .failures import reasons

T = TypeVar("T")


class InterruptibleCluster(SpecCluster):
    """A cluster that Ctrl-C, or the cancellation of who awaits it, leaves entirely up or
    entirely ended: no process and no lease is left of a start that was broken off.

    Dask's own starts and ends in an event loop on another thread, but is waited for on
    the main thread, which Ctrl-C takes away at any step; what the loop has begun then
    goes on, known to nobody.

    Its workers have a ``give_up`` method, which ends them soon.
    """

    _has_started = False
    """Whether it has been up."""
    _is_given_up = False
    """Whether Ctrl-C has come while it started or closed."""

    def _give_up(self) -> None:
        """Ctrl-C: end soon what starts or closes. Called between any two steps of the
        main thread.
        """
        self._is_given_up = True
        # There is no loop yet, or none any more.
        with contextlib.suppress(AttributeError, RuntimeError):
            loop: Any = self.loop
            loop.add_callback(self._give_up_workers)

    def _give_up_workers(self) -> None:
        for worker in list(self._created):
            if worker.status is not Status.running:
                worker.give_up()

    def _abandon(self) -> None:
        """End what there is of a start."""
        status = getattr(self, "status", Status.closed)
        if status not in (Status.closed, Status.created):
            self.close()
        runner = getattr(self, "_loop_runner", None)
        if runner is not None:
            runner.stop()

    def close(self, timeout: float | None = None) -> Any:
        """End the workers, give their slices back, and end the scheduler.

        Ctrl-C makes it hasten, and is raised when all has ended.
        """
        with DeferredInterrupts(self._give_up):
            return super().close(timeout)

    async def _start(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            # Inherited by workers: interrupting a kernel interrupts its process group,
            # and they may be too young yet to ignore that.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            await super()._start()
        except RuntimeError as error:
            if isinstance(error.__cause__, Exception):
                raise ClusterError(
                    f"the scheduler did not start: {reasons(error.__cause__)}"
                ) from error
            raise

    @property
    def _is_closing(self) -> bool:
        return self.status in (Status.closing, Status.closed)

    async def _close(self) -> None:
        if self.status is Status.starting:
            # A start that was cancelled; Dask ends those only that have failed.
            self.status = Status.failed
        for worker in list(self._created):
            if worker.status is Status.created:
                worker.give_up()
        await super()._close()

    def __await__(self) -> Generator[Any, Any, Self]:
        waiting = self._await_started() if self.asynchronous else _ready(self)
        return waiting.__await__()

    async def _await_started(self) -> Self:
        is_first = not self._has_started
        start = asyncio.ensure_future(_awaited(super().__await__()))
        try:
            await completed(start, on_cancel=self._give_up if is_first else _do_nothing)
        except BaseException:
            if is_first:
                await completed(asyncio.ensure_future(self._close()))
            raise
        return self

    def __enter__(self) -> Self:
        with DeferredInterrupts(undo=self.close):
            entered: Self = super().__enter__()
        return entered

    async def __aenter__(self) -> Self:
        if not self.asynchronous:
            return self
        try:
            await super().__aenter__()
        except BaseException:
            await completed(asyncio.ensure_future(self._close()))
            raise
        return self

    async def __aexit__(self, *error: Any) -> None:
        if self.asynchronous:
            await completed(asyncio.ensure_future(self._close()))
        else:
            await asyncio.to_thread(self.close)


async def _ready(cluster: T) -> T:
    return cluster


@types.coroutine
def _awaited(waiting: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """What an object's ``__await__`` waits for, as a coroutine."""
    return (yield from waiting)


def _do_nothing() -> None:
    pass
