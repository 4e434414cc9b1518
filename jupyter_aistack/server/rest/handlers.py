"""REST: thin verbs over the service. Each is authenticated and authorized by name, none
shares a decorated method.
"""

from __future__ import annotations

import re

from jupyter_server.auth.decorator import authorized
from tornado.web import authenticated

from jupyter_aistack.core.wire import schemas
from jupyter_aistack.exceptions import LeaseNotFound

from .base import RESTHandler

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
DRAIN_FIELDS = frozenset({"until", "seconds", "reason"})
ID = re.compile(schemas.ID_PATTERN)


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


class HostsHandler(RESTHandler):
    @authenticated
    @authorized("read", resource="aistack:host")
    async def get(self) -> None:
        """All hosts that share the ledger: who holds what, who waits, what is free."""
        await self.reply("hosts", {})


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


class DrainHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:devices")
    async def post(self, device: str) -> None:
        """Grant nothing new on a device; for operators and admins only."""
        fields = self.body(DRAIN_FIELDS)
        await self.reply("drain", {**fields, "device": device})

    @authenticated
    @authorized("write", resource="aistack:devices")
    async def delete(self, device: str) -> None:
        """Grant a device again, whyever it was not; for operators and admins only."""
        await self.reply("undrain", {"device": device})


class QuarantineHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:devices")
    async def post(self, device: str) -> None:
        """Grant nothing new on a device until somebody undrains it; for operators and
        admins only.
        """
        fields = self.body(frozenset({"reason"}))
        await self.reply("quarantine", {**fields, "device": device})


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
        """Keep slices for a queue between two moments; for managers of the queue and admins only."""
        self.set_status(201)
        await self.reply("reserve", self.body(RESERVATION_FIELDS))


class ReservationHandler(RESTHandler):
    @authenticated
    @authorized("write", resource="aistack:reservations")
    async def delete(self, reservation_id: str) -> None:
        """Take a reservation back; for managers of the queue and admins only."""
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
    (r"/aistack/api/v1/hosts", HostsHandler),
    (r"/aistack/api/v1/leases", LeasesHandler),
    (r"/aistack/api/v1/leases/([^/]+)", LeaseHandler),
    (r"/aistack/api/v1/leases/([^/]+)/extend", ExtendHandler),
    (r"/aistack/api/v1/leases/([^/]+)/suspend", SuspendHandler),
    (r"/aistack/api/v1/leases/([^/]+)/resume", ResumeHandler),
    (r"/aistack/api/v1/leases/([^/]+)/pin", PinHandler),
    (r"/aistack/api/v1/leases/([^/]+)/unpin", UnpinHandler),
    (r"/aistack/api/v1/devices/([^/]+)/drain", DrainHandler),
    (r"/aistack/api/v1/devices/([^/]+)/quarantine", QuarantineHandler),
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
