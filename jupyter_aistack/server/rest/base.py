"""What all REST handlers share: the parts they need, what they read, and errors as JSON."""

from __future__ import annotations

import json
import re
from http.client import responses
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado.web import HTTPError

from jupyter_aistack.core.wire.json_body import check_fields, read_object
from jupyter_aistack.exceptions import AIStackError, InvalidRequest
from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.server.kernels import KernelRegistry
from jupyter_aistack.server.realtime.sampler import Sampler

CODES = {
    400: "InvalidRequest",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
}


def error_body(error: object, status_code: int) -> dict[str, Any]:
    """An error as the body of an answer."""
    if isinstance(error, AIStackError):
        return {**error.as_dict(), "reason": None}
    message = responses.get(status_code, "Unknown error")
    # The message of an HTTPError is for users; that of a bug is not.
    if isinstance(error, HTTPError) and error.log_message:
        message = error.log_message
    return {
        "code": CODES.get(status_code, "AIStackError"),
        "message": message,
        "facts": {},
        "reason": getattr(error, "reason", None),
    }


class RESTHandler(ExtensionHandlerMixin, APIHandler):
    """What all verbs share: the parts they need, and errors as JSON."""

    def initialize(
        self,
        name: str,
        context: ServerContext,
        kernels: KernelRegistry,
        sampler: Sampler,
    ) -> None:
        super().initialize(name)
        # A page that is open asks by itself where it has no stream: reading must not
        # keep an idle server.
        self._track_activity = self.request.method not in ("GET", "HEAD")
        self.context = context
        self.kernels = kernels
        self.sampler = sampler

    async def reply(self, verb: str, payload: dict[str, Any]) -> None:
        """Answer with a verb's result."""
        caller = await self.kernels.caller_in_browser()
        self.finish(await self.context.call(verb, payload, caller))

    def body(self, known: frozenset[str]) -> dict[str, Any]:
        """The request's JSON object, with no fields but those known."""
        fields = read_object(self.request.body)
        check_fields(fields, known)
        return fields

    def no_fields(self) -> None:
        """The request needs no body, and may have an empty object."""
        if self.request.body:
            self.body(frozenset())

    def flag(self, name: str) -> bool:
        """A query argument that is 0 or 1; 0 when absent."""
        text = self.get_query_argument(name, "0")
        if text not in ("0", "1"):
            raise InvalidRequest(
                f"{name}: expected 0 or 1, got {text[:64]!r}", field=name
            )
        return text == "1"

    def count(self, name: str) -> int:
        """A query argument that is a whole number from 0; 0 when absent."""
        text = self.get_query_argument(name, "0")
        if not re.fullmatch(r"[0-9]{1,15}", text):
            raise InvalidRequest(
                f"{name}: expected a whole number from 0, got {text[:64]!r}", field=name
            )
        return int(text)

    def seconds(self, name: str) -> float | None:
        """A query argument that is a moment in seconds since the epoch; None when
        absent.
        """
        text = self.get_query_argument(name, None)
        if text is None:
            return None
        if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
            raise InvalidRequest(
                f"{name}: expected seconds since the epoch, got {text[:64]!r}",
                field=name,
            )
        return float(text)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """An error meant for the user needs no traceback in the log."""
        if not isinstance(value, AIStackError):
            super().log_exception(typ, value, tb)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Take the status from our own errors."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, AIStackError):
            status_code = error.http_status
        super().send_error(status_code, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every error has ``code``, ``message``, ``facts`` and, for JupyterLab,
        ``reason``.
        """
        error = kwargs.get("exc_info", (None, None))[1]
        self.finish(json.dumps(error_body(error, status_code)))
