"""One thread that samples the host for all clients, so that ten open browsers cost what
one browser does.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.server.context import ServerContext

LEASED_SECONDS = 5.0  # no client watches, but there is use to notice
SHOWN = ("host", "leases", "queue", "usage")
LEAST_GAP_SECONDS = 0.05  # between two looks, however much changes


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the host looked like at one moment.

    Attributes:
        data: the snapshot as the stream sends it: ``type``, ``host``, ``leases``,
            ``queue``, ``usage``.
        text: `data` as JSON, made once for all who watch.
        revision: changes when leases or the queue have changed, not with usage.
        at: when it was taken, on the monotonic clock.
    """

    data: dict[str, Any]
    text: str
    revision: int
    at: float


@dataclass(eq=False)
class SamplerSubscription:
    """Someone who wants to see samples; `seconds` apart is often enough."""

    listener: Callable[[Sample | AIStackError], None]
    seconds: float


class Sampler:
    """Takes samples while someone watches or something is leased, and sleeps otherwise.

    Args:
        take: looks at the host; called in the sampler's thread, may take its time, may
            raise `AIStackError`.
        log: where surprises go.
    """

    def __init__(self, take: Callable[[], dict[str, Any]], log: logging.Logger) -> None:
        self._take = take
        self._log = log
        self._latest: Sample | None = None
        self._wake = threading.Condition()
        self._is_poked = self._is_stopped = False
        self._watches: set[SamplerSubscription] = set()
        self._revisions = itertools.count(1)
        self._thread: threading.Thread | None = None

    @property
    def latest(self) -> Sample | None:
        """The newest sample."""
        return self._latest

    def watch(
        self, listener: Callable[[Sample | AIStackError], None], seconds: float
    ) -> SamplerSubscription:
        """Have `listener` called with each sample (or the error that came instead), in
        the sampler's thread.
        """
        watch = SamplerSubscription(listener, seconds)
        with self._wake:
            self._watches.add(watch)
        self.poke()
        return watch

    def unsubscribe(self, watch: SamplerSubscription) -> None:
        """Stop calling. Doing so twice is allowed."""
        with self._wake:
            self._watches.discard(watch)

    def poke(self) -> None:
        """Take a sample as soon as possible."""
        with self._wake:
            if self._is_stopped:
                return
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="aistack-sampler", daemon=True
                )
                self._thread.start()
            self._is_poked = True
            self._wake.notify_all()

    def stop(self) -> None:
        """End the thread, without waiting for a driver that does not answer."""
        with self._wake:
            self._is_stopped = True
            self._wake.notify_all()

    def sample(self) -> Sample:
        """Take a sample now. Raises whatever looking raises."""
        data = self._take()
        before = self._latest
        is_same = before is not None and all(
            before.data[key] == data[key] for key in ("leases", "queue")
        )
        revision = (
            before.revision if before is not None and is_same else next(self._revisions)
        )
        self._latest = Sample(
            data=data, text=json.dumps(data), revision=revision, at=time.monotonic()
        )
        return self._latest

    # -- the thread --------------------------------------------------------------------

    def _run(self) -> None:
        while self._sleep_until_wanted():
            sample = self._sample_or_error()
            with self._wake:
                watches = list(self._watches)
            for watch in watches:
                self._tell(watch, sample)

    def _sleep_until_wanted(self) -> bool:
        with self._wake:
            if self._wake.wait_for(lambda: self._is_stopped, LEAST_GAP_SECONDS):
                return False
            self._wake.wait_for(
                lambda: self._is_poked or self._is_stopped, self._pause()
            )
            self._is_poked = False
            return not self._is_stopped

    def _pause(self) -> float | None:
        seconds = [watch.seconds - LEAST_GAP_SECONDS for watch in self._watches]
        if self._latest is not None and self._latest.data["leases"]:
            seconds.append(LEASED_SECONDS)
        return min(seconds, default=None)

    def _sample_or_error(self) -> Sample | AIStackError:
        try:
            return self.sample()
        except AIStackError as error:
            return error
        except (
            Exception
        ) as error:  # a bug in a driver must not end the only thread that looks
            self._log.exception("the host cannot be looked at")
            return AIStackError(f"the host cannot be looked at: {type(error).__name__}")

    def _tell(self, watch: SamplerSubscription, sample: Sample | AIStackError) -> None:
        try:
            watch.listener(sample)
        except RuntimeError:  # its event loop has closed
            self.unsubscribe(watch)


def snapshot(context: ServerContext) -> dict[str, Any]:
    """The whole picture, as the stream sends it. Call it in a thread; raises
    `AIStackError`.
    """
    from jupyter_aistack.broker.api.caller import Caller
    from jupyter_aistack.system.users import current_user

    service = context.service
    login = Caller(user=current_user(), uid=os.getuid())
    if context.has_host_broker:  # which looks once for all servers
        look = service.call("snapshot", {}, login)
        return {"type": "snapshot", **{name: look[name] for name in SHOWN}}
    return {
        "type": "snapshot",
        "host": service.call("host", {}, login),
        "leases": service.call("leases", {}, login)["leases"],
        "queue": service.call("queue", {}, login)["queue"],
        "usage": service.call("usage", {}, login),
    }
