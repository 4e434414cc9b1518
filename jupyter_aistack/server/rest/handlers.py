"""REST: thin verbs over the service. Each is authenticated and authorized by name, none
shares a decorated method.
"""

from __future__ import annotations

import json
import re
from http.client import responses
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado.web import HTTPError, authenticated

from jupyter_aistack.core.wire import schemas
from jupyter_aistack.core.wire.json_body import check_fields, read_object
from jupyter_aistack.exceptions import AIStackError, InvalidRequest, LeaseNotFound
from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.server.kernels import KernelRegistry
from jupyter_aistack.server.realtime.sampler import Sampler

REQUEST_FIELDS = frozenset(
    {
        "spec",
        "kernel_id",
        "queue",
        "lease_seconds",
        "patience_seconds",
        "preemptible",
        "up_to",
        "idempotency_key",
    }
)
RESERVATION_FIELDS = frozenset(
    {"name", "spec", "count", "queue", "starts_at", "ends_at", "weekly"}
)
ID = re.compile(schemas.ID_PATTERN)
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


def checked_id(text: str) -> str:
    """An id from a path. Raises `LeaseNotFound` for what no ledger has ever given
    out.
    """
    if not ID.fullmatch(text):
        raise LeaseNotFound("there is no such lease, request or reservation")
    return text


class HostHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:host")
    async def get(self) -> None:
        """The host: its devices, what is free, its queues and reservations."""
        await self.reply("host", {})


class LeasesHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:leases")
    async def get(self) -> None:
        """The live leases, or with ``all=1`` the ended leases as well; newest first."""
        await self.reply("leases", {"all": self.flag("all")})

    @authenticated
    @authorized("write", resource="aistack:leases")
    async def post(self) -> None:
        """Ask for a slice, for a kernel of this server or for the server itself."""
        from jupyter_aistack.core.wire.values import text_field

        fields = self.body(REQUEST_FIELDS)
        kernel_id = text_field(fields, "kernel_id") if "kernel_id" in fields else None
        payload = {name: value for name, value in fields.items() if name != "kernel_id"}
        caller = await self.kernels.caller_in_browser(kernel_id)
        answer = await self.context.call("request", payload, caller)
        self.set_status(201 if answer["lease"] else 202)
        self.finish({name: answer[name] for name in ("request", "lease", "advice")})


class LeaseHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:leases")
    async def delete(self, lease_id: str) -> None:
        """Give a lease back."""
        await self.reply("release", {"lease_id": checked_id(lease_id)})


class ExtendHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:leases")
    async def post(self, lease_id: str) -> None:
        """Move the end of a lease, and keep an idle lease."""
        fields = self.body(frozenset({"seconds"}))
        await self.reply("extend", {**fields, "lease_id": checked_id(lease_id)})


class SuspendHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:leases")
    async def post(self, lease_id: str) -> None:
        """Move an idle lease's device state to host memory, so that others may use the
        device.
        """
        self.no_fields()
        await self.reply("suspend", {"lease_id": checked_id(lease_id)})


class ResumeHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:leases")
    async def post(self, lease_id: str) -> None:
        """Move it back, once there is capacity."""
        self.no_fields()
        await self.reply("resume", {"lease_id": checked_id(lease_id)})


class PinHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:leases")
    async def post(self, lease_id: str) -> None:
        """Keep it on the device whatever others need."""
        self.no_fields()
        await self.reply("pin", {"lease_id": checked_id(lease_id)})


class UnpinHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:leases")
    async def post(self, lease_id: str) -> None:
        """Let it be suspended again."""
        self.no_fields()
        await self.reply("unpin", {"lease_id": checked_id(lease_id)})


class QueueHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:queue")
    async def get(self) -> None:
        """The waiting requests, first served first: why each waits, and when it is
        expected to be granted.
        """
        await self.reply("queue", {})


class QueuedHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:queue")
    async def delete(self, request_id: str) -> None:
        """Withdraw a waiting request."""
        await self.reply("cancel", {"request_id": checked_id(request_id)})


class ReservationsHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:reservations")
    async def get(self) -> None:
        """What is kept for whom, now and later."""
        await self.reply("reservations", {})

    @authenticated
    @authorized("write", resource="aistack:reservations")
    async def post(self) -> None:
        """Keep slices for a queue between two moments; for admins only."""
        self.set_status(201)
        await self.reply("reserve", self.body(RESERVATION_FIELDS))


class ReservationHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:reservations")
    async def delete(self, reservation_id: str) -> None:
        """Take a reservation back; for admins only."""
        await self.reply("unreserve", {"reservation_id": checked_id(reservation_id)})


class UsageHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:usage")
    async def get(self) -> None:
        """What is in use now, by device and by lease."""
        await self.reply("usage", {})


class ReportHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:report")
    async def get(self) -> None:
        """What users have used, by week; the caller's own use unless ``user`` or
        ``all=1`` asks for more.
        """
        payload = {
            "all": self.flag("all"),
            "since": self.seconds("since"),
            "until": self.seconds("until"),
        }
        texts = {name: self.get_query_argument(name, "") for name in ("week", "user")}
        await self.reply("report", payload | texts)


class BillHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:report")
    async def get(self) -> None:
        """What a kernel of this server has used, cell by cell, or with ``notebook=1``
        its notebook.
        """
        caller = await self.kernels.caller_in_browser(
            self.get_query_argument("kernel_id", None)
        )
        payload = {"notebook": self.flag("notebook"), "since": self.seconds("since")}
        self.finish(await self.context.call("bill", payload, caller))


class AdviceHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:report")
    async def get(self) -> None:
        """Which size would have done: for a kernel's notebook, or without a kernel for
        each notebook of the user.
        """
        kernel_id = self.get_query_argument("kernel_id", None)
        caller = await self.kernels.caller_in_browser(kernel_id)
        self.finish(
            await self.context.call("advise", {"all": kernel_id is None}, caller)
        )


class EventsHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:events")
    async def get(self) -> None:
        """What has happened after sequence number ``after``."""
        await self.reply("events", {"after": self.count("after")})


class OpenAPIHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:host")
    async def get(self) -> None:
        """This interface, described."""
        from .openapi import document

        self.finish(document(self.base_url))


class MetricsHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:metrics")
    async def get(self) -> None:
        """The host's figures for Prometheus, from the sample all who watch share."""
        from .metrics import CONTENT_TYPE, exposition

        caller = await self.kernels.caller_in_browser()

        def scrape() -> bytes:
            service = self.context.service
            charged, rates = service.charged(caller)
            return exposition(
                service.figures(caller), self.context.event_counts, charged, rates
            )

        text = await self.context.run(scrape)
        self.finish(text, set_content_type=CONTENT_TYPE)


ROUTES: tuple[tuple[str, type[RESTHandler]], ...] = (
    (r"/aistack/api/v1/host", HostHandler),
    (r"/aistack/api/v1/leases", LeasesHandler),
    (r"/aistack/api/v1/leases/([^/]+)", LeaseHandler),
    (r"/aistack/api/v1/leases/([^/]+)/extend", ExtendHandler),
    (r"/aistack/api/v1/leases/([^/]+)/suspend", SuspendHandler),
    (r"/aistack/api/v1/leases/([^/]+)/resume", ResumeHandler),
    (r"/aistack/api/v1/leases/([^/]+)/pin", PinHandler),
    (r"/aistack/api/v1/leases/([^/]+)/unpin", UnpinHandler),
    (r"/aistack/api/v1/queue", QueueHandler),
    (r"/aistack/api/v1/queue/([^/]+)", QueuedHandler),
    (r"/aistack/api/v1/reservations", ReservationsHandler),
    (r"/aistack/api/v1/reservations/([^/]+)", ReservationHandler),
    (r"/aistack/api/v1/usage", UsageHandler),
    (r"/aistack/api/v1/report", ReportHandler),
    (r"/aistack/api/v1/bill", BillHandler),
    (r"/aistack/api/v1/advice", AdviceHandler),
    (r"/aistack/api/v1/events", EventsHandler),
    (r"/aistack/api/v1/openapi\.json", OpenAPIHandler),
    (r"/aistack/metrics", MetricsHandler),
)
