"""Ctrl-C while something must not stay half done: noted at once, raised when that is
safe.
"""

from __future__ import annotations

import _signal
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

INSIST_SECONDS = 20.0
"""Who still interrupts so long after the first time is not kept waiting any more."""


# Those of `signal` wrap these, and go on for some steps of Python, between any of which
# an interrupt may come; these are one step.
_set_handler: Callable[..., Any] = _signal.signal
_get_handler: Callable[..., Any] = _signal.getsignal


def _do_nothing() -> None:
    pass


class DeferredInterrupts:
    """A block that Ctrl-C does not break off: ``KeyboardInterrupt`` is raised at its
    end, once, in place of any other error.

    Python raises ``KeyboardInterrupt`` between any two steps of the main thread, also
    inside the clean-up after another. Only a block that is told of it instead can end
    what it has begun.

    An interrupt `INSIST_SECONDS` after the first is raised at once: then the block
    waits for something that does not come. Nothing is deferred in other threads, which
    are never interrupted, nor where the user has a handler for SIGINT, which decides.

    Args:
        on_interrupt: called at each interrupt, between any two steps of the main
            thread: it may set a flag or wake an event loop, and take no lock.
        undo: called at the end of a block that came through although there was an
            interrupt, before it is raised.
    """

    def __init__(
        self,
        on_interrupt: Callable[[], None] = _do_nothing,
        undo: Callable[[], None] = _do_nothing,
    ) -> None:
        self._on_interrupt = on_interrupt
        self._undo = undo
        self._first_at: float | None = None
        self._is_asleep = False
        self._before: Any = None

    @property
    def is_pending(self) -> bool:
        """Whether there was an interrupt."""
        return self._first_at is not None

    def sleep(self, seconds: float) -> None:
        """Sleep inside the block; an interrupt is raised here at once, and one that
        comes while it is dealt with is deferred again. One that an outer block has
        noted is raised too: there is nothing to wait for any more.
        """
        if self.is_pending or self._is_outer_pending():
            raise KeyboardInterrupt
        self._is_asleep = True
        try:
            time.sleep(seconds)
        finally:
            self._is_asleep = False

    def __enter__(self) -> Self:
        handler = _get_handler(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and _raises(handler):
            self._before = handler
            _set_handler(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Undone while interrupts are deferred still: another must not break that off.
        is_undone = self.is_pending
        if is_undone and error is None:
            self._undo()
        if self._before is not None:
            _set_handler(signal.SIGINT, self._before)
            self._before = None
        if not self.is_pending:
            return
        if error is None and not is_undone:
            self._undo()
        if not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from None

    def _is_outer_pending(self) -> bool:
        outer = _block_of(self._before)
        return outer is not None and (outer.is_pending or outer._is_outer_pending())

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
        elif now - self._first_at > INSIST_SECONDS:
            raise KeyboardInterrupt
        self._on_interrupt()
        if self._is_asleep:
            self._is_asleep = False
            raise KeyboardInterrupt


def _raises(handler: object) -> bool:
    """Whether a handler of SIGINT does no more than to raise ``KeyboardInterrupt``, now
    or later.
    """
    return handler is signal.default_int_handler or _block_of(handler) is not None


def _block_of(handler: object) -> DeferredInterrupts | None:
    """The block whose handler of SIGINT it is; None for any other."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, DeferredInterrupts) else None
