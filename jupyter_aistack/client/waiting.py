"""Waiting for a request to be granted: how often to ask, and what ends the wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jupyter_aistack.exceptions import (
    AcquireTimeout,
    AIStackError,
    Refused,
    error_from_dict,
)
from jupyter_aistack.system.interrupts import DeferredInterrupts
from jupyter_aistack.system.standard_streams import tell

FIRST_POLL_SECONDS = 0.1
LAST_POLL_SECONDS = 1.0


SILENT_SECONDS = 2.0
"""How long nothing is said of a wait."""
TOLD_SECONDS = 30.0
"""Between two lines about a wait, at least."""


class WaitProgress:
    """Says on stderr what a request waits for, where nobody else shows it: a script that
    stands still without a word looks as if it were broken.

    Args:
        spec: what is waited for.
        clock: seconds that only go on.
    """

    def __init__(
        self, spec: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spec = spec
        self._clock = clock
        self._began_at = clock()
        self._tell_at = self._began_at + SILENT_SECONDS
        self._told = ""

    def waits(self, position: int | None, reason: str) -> None:
        """It still waits, at a place of the queue and for a reason."""
        from jupyter_aistack.core.model.printable import printable

        place = "" if position is None else f", number {position} in the queue"
        line = f"aistack waits for {self._spec}{place}: {printable(reason)}"
        now = self._clock()
        if now >= self._tell_at and line != self._told:
            self._tell_at = now + TOLD_SECONDS
            self._told = line
            tell(line)

    def granted(self) -> None:
        """It waits no longer."""
        if self._told:
            seconds = self._clock() - self._began_at
            tell(f"aistack: {self._spec} was granted after {seconds:.0f} s")


def interruptible(
    on_slow: Callable[[float], None], interrupts: DeferredInterrupts
) -> Callable[[float], None]:
    """`on_slow`, after which an interrupt that was noted is raised: Ctrl-C need not wait
    for a driver.
    """

    def told(seconds: float) -> None:
        on_slow(seconds)
        interrupts.sleep(0)

    return told


def pauses_until(deadline: float | None) -> Iterator[float]:
    """Seconds to sleep between two polls, longer and longer up to the deadline.

    Args:
        deadline: on the clock of `time.monotonic`; None for none.
    """
    pause = FIRST_POLL_SECONDS
    while True:
        if deadline is None:
            yield pause
        else:
            yield max(0.0, min(pause, deadline - time.monotonic()))
        pause = min(LAST_POLL_SECONDS, pause * 1.5)


def check_waiting(request: Mapping[str, Any], deadline: float | None) -> None:
    """Return while it makes sense to wait for a request that is not granted yet.

    Args:
        request: as on the wire.
        deadline: on the clock of `time.monotonic`; None for none.

    Raises:
        AcquireTimeout: the deadline is over, or the request was not to wait so long.
        Refused: it was withdrawn, or rejected; then of the class its code names.
    """
    from jupyter_aistack.core.model.request import RequestState

    state = request["state"]
    if state == RequestState.CANCELLED.value:
        raise Refused(f"the request for {request['spec']} was withdrawn")
    if state == RequestState.REJECTED.value:
        raise _rejection(request)
    if deadline is not None and time.monotonic() >= deadline:
        raise _timeout(request)


def _rejection(request: Mapping[str, Any]) -> AIStackError:
    code = request["code"]
    if code == AcquireTimeout.__name__:
        return _timeout(request)
    message = f"the request for {request['spec']} was rejected: {request['reason']}"
    facts = {"request_id": request["id"]}
    return error_from_dict({"code": code, "message": message, "facts": facts})


def _timeout(request: Mapping[str, Any]) -> AcquireTimeout:
    return AcquireTimeout(
        f"no slice came free in time for {request['spec']}: {request['reason']}",
        request_id=request["id"],
    )
