"""The service of a hub: a page that shows a host's devices to the users of the hub, and
lets those change them who may.

It has no right of its own. What a user asks is passed to the broker of the host with
that user's token, and the broker asks the hub what it stands for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from jupyterhub.utils import url_path_join
from tornado.httpserver import HTTPServer
from tornado.httputil import url_concat
from tornado.web import Application, HTTPError, RequestHandler, authenticated

from jupyter_aistack._version import __version__
from jupyter_aistack.exceptions import AIStackError, InvalidRequest
from jupyter_aistack.system.broker_socket import BrokerSocket

from .host_view import read_host
from .page import STYLE, Frame, error_page, host_page

JSON = dict[str, Any]
log = logging.getLogger("jupyter_aistack")

SECONDS_PER_HOUR = 3600
MAX_BODY_BYTES = 64 * 1024
MAX_DIGITS = 4
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""What the page may load, and where its forms may go."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
NOT_CONFIGURED = "This page is shown by JupyterHub, which is to start it as a service"


class HubPage(HubOAuthenticated, RequestHandler):
    """What the page and its forms share.

    Args:
        broker: the path of the broker's socket.
    """

    def initialize(self, broker: str) -> None:
        self._broker = broker

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    async def show(self, *, done: str = "", problem: str = "") -> None:
        """Answer with the page as this user sees it."""
        user = self.current_user["name"]
        view = await self.with_broker(lambda ask: read_host(ask, user, time.time()))
        self.finish(host_page(view, self._frame(done=done, problem=problem)))

    async def with_broker(self, function: Callable[[Callable[..., JSON]], Any]) -> Any:
        """Run what asks the broker as this user, in a thread."""
        token = self.hub_auth.get_token(self) or ""
        return await asyncio.to_thread(_asking_as, self._broker, token, function)

    def _frame(self, *, done: str = "", problem: str = "") -> Frame:
        return Frame(
            prefix=self.hub_auth.base_url,
            hub=f"{self.hub_auth.hub_host}{self.hub_auth.hub_prefix}",
            xsrf=self.xsrf_form_html(),
            done=done,
            problem=problem,
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """An error as a page with one sentence."""
        error = kwargs.get("exc_info", (None, None))[1]
        sentence = f"This page cannot be shown: {self._reason}."
        if isinstance(error, AIStackError):
            self.set_status(error.http_status)
            sentence = error.message
        elif isinstance(error, HTTPError) and error.log_message:
            sentence = (
                error.log_message % error.args if error.args else error.log_message
            )
        frame = Frame(
            prefix=self.hub_auth.base_url, hub=self.hub_auth.hub_prefix, xsrf=""
        )
        self.finish(error_page(sentence, frame))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """An error meant for the user needs no traceback in the log."""
        if not isinstance(value, AIStackError):
            super().log_exception(typ, value, tb)


class HostPage(HubPage):
    """The page of the host."""

    @authenticated
    async def get(self) -> None:
        await self.show(done=self.get_query_argument("done", ""))


class ActionForm(HubPage):
    """What a button of the page does: a verb of the broker, as the user who pressed it."""

    @authenticated
    async def post(self, action: str) -> None:
        try:
            payload = _PAYLOADS[action](self)
            await self.with_broker(lambda ask: ask(action, **payload))
        except AIStackError as error:
            self.set_status(error.http_status)
            return await self.show(problem=error.message)
        self.redirect(url_concat(self.hub_auth.base_url, {"done": action}), status=303)
        return None

    @authenticated
    def get(self, action: str) -> None:
        """After a login that came between: the button has to be pressed again."""
        self.redirect(self.hub_auth.base_url)


class StyleSheet(RequestHandler):
    """The style of the page, which everybody may read."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/css; charset=utf-8")
        self.set_header("Cache-Control", "max-age=300")
        self.finish(STYLE)


def _asking_as(
    path: str, token: str, function: Callable[[Callable[..., JSON]], Any]
) -> Any:
    """The value of a function that is given a way to ask the broker as the owner of a
    token.
    """
    broker = BrokerSocket(
        path, client=f"jupyter_aistack.hub {__version__}", token=token
    )

    def ask(verb: str, **payload: Any) -> JSON:
        return broker.call(verb, payload)

    try:
        return function(ask)
    finally:
        broker.close()


# -- forms -----------------------------------------------------------------------------


def _release(form: RequestHandler) -> JSON:
    return {"lease_id": form.get_body_argument("lease_id")}


def _cancel(form: RequestHandler) -> JSON:
    return {"request_id": form.get_body_argument("request_id")}


def _drain(form: RequestHandler) -> JSON:
    payload = {**_undrain(form), "reason": form.get_body_argument("reason", "")}
    hours = form.get_body_argument("hours", "")
    if not hours:
        return payload
    if not (hours.isascii() and hours.isdigit() and len(hours) <= MAX_DIGITS):
        raise InvalidRequest(
            f"hours: expected a whole number, got {hours!r:.64}", field="hours"
        )
    return {**payload, "seconds": int(hours) * SECONDS_PER_HOUR}


def _undrain(form: RequestHandler) -> JSON:
    return {"device": form.get_body_argument("device")}


_PAYLOADS: Mapping[str, Callable[[RequestHandler], JSON]] = {
    "release": _release,
    "cancel": _cancel,
    "drain": _drain,
    "undrain": _undrain,
}
"""What the fields of a form say, by the verb that it stands for."""


# -- the service -----------------------------------------------------------------------


def make_app(prefix: str, broker: str) -> Application:
    """The pages of the service.

    Args:
        prefix: the path that the hub gives it, such as ``/services/aistack/``.
        broker: the path of the broker's socket.
    """
    actions = "|".join(_PAYLOADS)
    parts = {"broker": broker}
    return Application(
        [
            (url_path_join(prefix, "oauth_callback"), HubOAuthCallbackHandler),
            (url_path_join(prefix, "style.css"), StyleSheet),
            (url_path_join(prefix, f"({actions})"), ActionForm, parts),
            (prefix, HostPage, parts),
        ],
        cookie_secret=os.urandom(32),
        xsrf_cookies=True,
    )


async def serve(environment: Mapping[str, str], broker: str) -> None:
    """Serve the page as the hub asks for it in the environment, until cancelled.

    Raises:
        InvalidRequest: the hub has not started this process.
    """
    for name in ("JUPYTERHUB_SERVICE_URL", "JUPYTERHUB_SERVICE_PREFIX"):
        if not environment.get(name):
            raise InvalidRequest(f"{name}: {NOT_CONFIGURED}", field=name)
    address = urlsplit(environment["JUPYTERHUB_SERVICE_URL"])
    if address.scheme != "http":
        raise InvalidRequest(
            "JUPYTERHUB_SERVICE_URL: this service speaks plain HTTP with the hub's proxy "
            "on its own machine, and none of JupyterHub.internal_ssl",
            field="JUPYTERHUB_SERVICE_URL",
        )
    server = HTTPServer(
        make_app(environment["JUPYTERHUB_SERVICE_PREFIX"], broker),
        max_body_size=MAX_BODY_BYTES,
        xheaders=True,
    )
    server.listen(address.port or 0, address.hostname or "127.0.0.1")
    await asyncio.Event().wait()
