"""The REST interface, described as OpenAPI 3.1."""

from __future__ import annotations

from jupyter_server.utils import url_path_join

from jupyter_aistack._version import __version__
from jupyter_aistack.core.wire import schemas
from jupyter_aistack.core.wire.descriptions import described
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.records import DESCRIBED

ERRORS = {
    400: "The request cannot be understood; the message names the field.",
    403: "Not logged in, not allowed, or it belongs to someone else.",
    404: "There is no such lease, request, reservation or queue.",
    409: "Understood, but not granted or no longer possible; the message says why.",
    503: "The ledger or a driver does not answer; the message says why.",
}


def document(base_url: str) -> JSON:
    """The whole description, for a server at `base_url`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jupyter_aistack",
            "version": __version__,
            "description": "Lease slices of GPUs. Times: seconds since the epoch; sizes: bytes; shares: text like 1/4.",
        },
        "servers": [{"url": url_path_join(base_url, "aistack/api/v1")}],
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "schemas": described(schemas.SCHEMAS, _classes()),
            "responses": {"Error": _json("Error", "What went wrong, in one sentence.")},
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "token <token>",
                },
            },
        },
    }


_TEXT: JSON = {"type": "string"}
_SWITCH: JSON = {"type": "integer", "enum": [0, 1]}


def _classes() -> dict[str, type]:
    """The classes whose docstrings say what the fields of schemas mean."""
    return {record.name: record.cls for record in DESCRIBED}


def _paths() -> JSON:
    return {
        **_host_paths(),
        **_lease_paths(),
        **_queue_paths(),
        **_device_paths(),
        **_accounting_paths(),
    }


def _host_paths() -> JSON:
    after = _query(
        "after",
        "Only events with a higher sequence.",
        {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
    )
    return {
        "/host": {
            "get": _verb(
                "getHost",
                "The host, its devices, queues and reservations.",
                {200: "Host"},
                (403, 503),
            )
        },
        "/hosts": {
            "get": _verb(
                "listHosts",
                "All hosts that share the ledger: who holds what, and what is free.",
                {200: "Hosts"},
                (403, 503),
            )
        },
        "/usage": {
            "get": _verb("getUsage", "What is in use now.", {200: "Usage"}, (403, 503))
        },
        "/events": {
            "get": _verb(
                "listEvents",
                "What has happened.",
                {200: "Events"},
                (400, 403, 503),
                [after],
            )
        },
        "/openapi.json": {
            "get": _verb("getOpenAPI", "This document.", {200: "OpenAPI"}, (403,))
        },
    }


def _lease_paths() -> JSON:
    ended = _query("all", "1 shows ended leases as well.", _SWITCH)
    return {
        "/leases": {
            "get": _verb(
                "listLeases",
                "Leases, newest first.",
                {200: "Leases"},
                (400, 403, 503),
                [ended],
            ),
            "post": _verb(
                "requestSlice",
                "Ask for a slice: granted at once (201) or queued (202).",
                {201: "Granted", 202: "Queued"},
                (400, 403, 404, 409, 503),
                body="RequestBody",
            ),
        },
        "/leases/{id}": {
            "delete": _verb(
                "releaseLease",
                "Give a lease back.",
                {200: "Lease"},
                (403, 404, 409, 503),
                [_id()],
            ),
        },
        "/leases/{id}/extend": {
            "post": _verb(
                "extendLease",
                "Move the end of a time-limited lease; a lease without an end stays without. An idle lease is kept.",
                {200: "Lease"},
                (400, 403, 404, 409, 503),
                [_id()],
                body="Extension",
            ),
        },
        "/leases/{id}/suspend": _move(
            "suspendLease",
            "Move an idle kernel's GPU state to host memory, for others' use.",
        ),
        "/leases/{id}/resume": _move(
            "resumeLease",
            "Resume it once there is capacity; the next cell does so by itself.",
        ),
        "/leases/{id}/pin": _move(
            "pinLease", "Keep it on its GPU even if the capacity is needed."
        ),
        "/leases/{id}/unpin": _move("unpinLease", "Let it be suspended again."),
    }


def _queue_paths() -> JSON:
    return {
        "/queue": {
            "get": _verb(
                "listQueue",
                "Waiting requests, first served first.",
                {200: "Queue"},
                (403, 503),
            )
        },
        "/queue/{id}": {
            "delete": _verb(
                "cancelRequest",
                "Withdraw a request.",
                {200: "Request"},
                (403, 404, 409, 503),
                [_id()],
            ),
        },
        "/reservations": {
            "get": _verb(
                "listReservations",
                "What is kept for whom.",
                {200: "Reservations"},
                (403, 503),
            ),
            "post": _verb(
                "reserve",
                "Keep slices for a queue between two moments; for managers of the"
                " queue and admins only.",
                {201: "Reservation"},
                (400, 403, 404, 409, 503),
                body="ReservationBody",
            ),
        },
        "/reservations/{id}": {
            "delete": _verb(
                "unreserve",
                "Cancel a reservation.",
                {200: "Reservation"},
                (403, 404, 409, 503),
                [_id()],
            ),
        },
    }


def _device_paths() -> JSON:
    return {
        "/devices/{device}/drain": {
            "post": _verb(
                "drain",
                "Grant nothing new on a device; for operators and admins only.",
                {200: "Device"},
                (400, 403, 503),
                [_device()],
                body="DrainBody",
            ),
            "delete": _verb(
                "undrain",
                "Grant a device again; for operators and admins only.",
                {200: "Device"},
                (400, 403, 409, 503),
                [_device()],
            ),
        },
        "/devices/{device}/quarantine": {
            "post": _verb(
                "quarantine",
                "Grant nothing new on a device until somebody undrains it; for operators"
                " and admins only.",
                {200: "Device"},
                (400, 403, 503),
                [_device()],
                body="QuarantineBody",
            ),
        },
    }


def _accounting_paths() -> JSON:
    return {
        "/report": {
            "get": _verb(
                "getReport",
                "What users have used, by week (UTC): the caller's own unless more is asked for.",
                {200: "Report"},
                (400, 403, 503),
                _report_parameters(),
            )
        },
        "/bill": {
            "get": _verb(
                "getBill",
                "What a kernel or its notebook has used, cell by cell.",
                {200: "UsageSummary"},
                (400, 403, 503),
                [
                    _query(
                        "kernel_id",
                        "A running kernel; this server itself without it.",
                        _TEXT,
                    ),
                    _query(
                        "notebook",
                        "1 counts all kernels of its notebook.",
                        _SWITCH,
                    ),
                    _query("since", "From the day of this moment.", schemas.MOMENT),
                ],
            )
        },
        "/advice": {
            "get": _verb(
                "getAdvice",
                "Which size would have done, judging by what was used.",
                {200: "Advices"},
                (400, 403, 503),
                [
                    _query(
                        "kernel_id",
                        "Of its notebook; of all your notebooks without it.",
                        _TEXT,
                    )
                ],
            )
        },
    }


def _report_parameters() -> list[JSON]:
    return [
        _query(
            "week",
            "Such as 2026-W48; not together with since and until.",
            _TEXT,
        ),
        _query("since", "From the day of this moment.", schemas.MOMENT),
        _query(
            "until",
            "Up to the day before this moment ends.",
            schemas.MOMENT,
        ),
        _query(
            "user",
            "Another user, where names are shown.",
            _TEXT,
        ),
        _query("all", "1 shows all users.", _SWITCH),
    ]


def _move(name: str, summary: str) -> JSON:
    return {
        "post": _verb(name, summary, {200: "Lease"}, (400, 403, 404, 409, 503), [_id()])
    }


def _verb(
    name: str,
    summary: str,
    answers: dict[int, str],
    errors: tuple[int, ...],
    parameters: list[JSON] | None = None,
    body: str = "",
) -> JSON:
    responses: JSON = {
        str(status): _json(schema, summary) for status, schema in answers.items()
    }
    responses.update({str(status): _error(status) for status in errors})
    verb: JSON = {
        "operationId": name,
        "summary": summary,
        "responses": responses,
        "parameters": parameters or [],
    }
    if body:
        verb["requestBody"] = {"required": True, **_content(body)}
    return verb


def _error(status: int) -> JSON:
    return {"description": ERRORS[status], **_content("Error")}


def _json(schema: str, description: str) -> JSON:
    return {"description": description, **_content(schema)}


def _content(schema: str) -> JSON:
    return {"content": {"application/json": {"schema": schemas.ref(schema)}}}


def _query(name: str, description: str, schema: JSON) -> JSON:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema,
    }


def _device() -> JSON:
    return {
        "name": "device",
        "in": "path",
        "required": True,
        "description": "Its id, the beginning of it, or the number of a GPU.",
        "schema": {"type": "string", "pattern": schemas.ID_PATTERN},
    }


def _id() -> JSON:
    schema = {"type": "string", "pattern": schemas.ID_PATTERN}
    return {"name": "id", "in": "path", "required": True, "schema": schema}
