"""The WebSocket that shows the host as it changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from jupyter_aistack.core.wire.json_body import check_fields, read_object
from jupyter_aistack.exceptions import AIStackError, InvalidRequest

from .sampler import Sample, Sampler, SamplerSubscription

SHOWN = ("aistack:host", "aistack:leases", "aistack:queue", "aistack:usage")
FRESH_SECONDS = 2.0
SLACK = 0.8  # a tick that comes a little early still counts as the next tick


class UpdatesWebSocket(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """Sends a snapshot at once, then one per tick and one per change; a slow reader
    misses those in between.
    """

    _watch: SamplerSubscription | None = None
    _waiting: str | None = None
    _is_sending = False
    _sent_revision = -1
    _sent_at = float("-inf")

    def initialize(self, sampler: Sampler) -> None:
        self._sampler = sampler

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Open the socket for who may read all that it shows."""
        for resource in SHOWN:
            if not await ensure_async(
                self.authorizer.is_authorized(self, self.current_user, "read", resource)
            ):
                raise web.HTTPError(
                    403, f"User is not authorized to read on resource: {resource}."
                )
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:
        """Send what is known and start to watch."""
        super().open(*args, **kwargs)
        self._loop = asyncio.get_running_loop()
        latest = self._sampler.latest
        if latest is not None and self._loop.time() - latest.at < FRESH_SECONDS:
            self._show(latest)
        self._watch = self._sampler.watch(self._from_thread, 1.0)

    def on_close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._sampler.unsubscribe(self._watch)
        super().on_close()

    def on_message(self, message: str | bytes) -> None:
        """Take ``{"interval": seconds}``; answer anything else with an error frame."""
        from jupyter_aistack.core.wire.values import number_field

        try:
            body = read_object(
                message.encode() if isinstance(message, str) else message
            )
            check_fields(body, frozenset({"interval"}))
            seconds = number_field(body, "interval", least=1, most=60)
            if seconds is None:
                raise InvalidRequest(
                    "interval: say how many seconds apart, 1 to 60", field="interval"
                )
        except AIStackError as error:
            self._send(_error_frame(error))
            return
        if self._watch is not None:
            self._watch.seconds = seconds

    # -- sending -----------------------------------------------------------------------

    def _from_thread(self, sample: Sample | AIStackError) -> None:
        self._loop.call_soon_threadsafe(self._show, sample)

    def _show(self, sample: Sample | AIStackError) -> None:
        if isinstance(sample, AIStackError):
            self._send(_error_frame(sample))
        elif sample.revision != self._sent_revision or self._is_due():
            self._sent_revision = sample.revision
            self._sent_at = self._loop.time()
            self._send(sample.text)

    def _is_due(self) -> bool:
        seconds = self._watch.seconds if self._watch is not None else 1.0
        return self._loop.time() - self._sent_at >= seconds * SLACK

    def _send(self, text: str) -> None:
        self._waiting = text
        if not self._is_sending:
            self._is_sending = True
            self._sender = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        """Send the newest text until there is none; what was replaced meanwhile is
        dropped.
        """
        with contextlib.suppress(WebSocketClosedError):
            while (text := self._waiting) is not None:
                self._waiting = None
                await self.write_message(text)
        self._is_sending = False


def _error_frame(error: AIStackError) -> str:
    return json.dumps({"type": "error", "error": error.as_dict()})
