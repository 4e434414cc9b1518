"""Waiting for a request to be granted: how often to ask, and what ends the wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from jupyter_aistack.exceptions import (
    AcquireTimeout,
    AIStackError,
    Refused,
    error_from_dict,
)

FIRST_POLL_SECONDS = 0.1
LAST_POLL_SECONDS = 1.0


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
