"""The description of the interface, held against a real server by generated
requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from jupyter_aistack.core.wire import schemas
from jupyter_aistack.server.rest.handlers import ROUTES
from jupyter_aistack.server.rest.openapi import document
from jupyter_aistack.system.users import current_user
from tests.fakes.live_server import TOKEN, LiveServer, live_server

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
HEADERS_OF_HTTP = (
    "Host",
    "Connection",
    "Content-Length",
    "Transfer-Encoding",
    "Expect",
)
"""A nonsense in one of these is turned down by the web server before any interface sees
the request.
"""
OPERATIONS = [
    (verb.upper(), path)
    for path, verbs in document("/")["paths"].items()
    for verb in verbs
]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    options = (
        "--AIStack.providers=simulated:2xH100-80GB",
        f"--AIStack.admins={current_user()}",
    )
    with live_server(tmp_path_factory.mktemp("server"), *options) as server:
        yield server


@pytest.fixture(scope="module")
def schema(live: LiveServer) -> Any:
    return schemathesis.openapi.from_url(
        f"{live.url}aistack/api/v1/openapi.json",
        headers={"Authorization": f"token {TOKEN}"},
    )


def test_document_is_valid_and_names_where_it_is_served(
    schema: Any, live: LiveServer
) -> None:
    schema.validate()
    assert schema.raw_schema["openapi"] == "3.1.0"
    assert schema.raw_schema["servers"] == [{"url": "/a%20b/aistack/api/v1"}]


def test_every_route_is_described() -> None:
    described = {
        re.sub(r"\{(id|device)\}", "X", path) for path in document("/")["paths"]
    }
    served = {
        route.removeprefix("/aistack/api/v1").replace("([^/]+)", "X").replace("\\", "")
        for route, _ in ROUTES
    }
    assert described == served - {"/aistack/metrics"}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_server_keeps_to_its_description(
    schema: Any, method: str, path: str, mode: schemathesis.GenerationMode
) -> None:
    # Unknown query arguments are let pass: Jupyter itself adds some. Unknown fields of
    # a body are not.
    checks = [*CHECKS, negative_data_rejection] if method == "POST" else CHECKS
    cases = schema[path][method].as_strategy(generation_mode=mode)

    @settings(
        max_examples=10,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def check(case: schemathesis.Case) -> None:
        for name in HEADERS_OF_HTTP:
            (case.headers or {}).pop(name, None)
        response = case.call_and_validate(
            headers={"Authorization": f"token {TOKEN}"}, checks=checks
        )
        if method == "POST" and response.status_code == 201:  # leave room for the next
            made = response.json()
            home, made_id = (
                ("/leases/{id}", made["lease"]["id"])
                if "lease" in made
                else (f"{path}/{{id}}", made["id"])
            )
            release = schema[home]["DELETE"].Case(path_parameters={"id": made_id})
            release.call_and_validate(
                headers={"Authorization": f"token {TOKEN}"}, checks=CHECKS
            )
        if "/devices/" in path and (method, response.status_code) == ("POST", 200):
            undrain = schema["/devices/{device}/drain"]["DELETE"].Case(
                path_parameters=case.path_parameters
            )
            undrain.call_and_validate(
                headers={"Authorization": f"token {TOKEN}"}, checks=CHECKS
            )

    check()


IDS = ("l-none", "r-1", "extend", "0", "a..b", "x" * 64)
"""Ids of nothing, as the description allows them."""


@pytest.mark.parametrize(
    ("method", "path"), [each for each in OPERATIONS if "{id}" in each[1]]
)
@pytest.mark.parametrize("name", IDS)
def test_an_id_of_nothing_is_answered_as_described(
    schema: Any, method: str, path: str, name: str
) -> None:
    body = {"body": {"seconds": 60}, "media_type": "application/json"}
    parts = body if path.endswith("/extend") else {}
    case = schema[path][method].Case(path_parameters={"id": name}, **parts)
    response = case.call_and_validate(
        headers={"Authorization": f"token {TOKEN}"}, checks=CHECKS
    )
    assert (response.status_code, response.json()["code"]) == (404, "LeaseNotFound")


def test_no_id_is_one_that_clients_take_out_of_a_path() -> None:
    pattern = re.compile(schemas.ID_PATTERN)
    assert [
        name for name in (".", "..", ".a", "", "x" * 65) if pattern.match(name)
    ] == []
    assert all(map(pattern.match, IDS))


def test_who_will_not_wait_on_a_full_host_is_refused_as_described(schema: Any) -> None:
    def call(method: str, path: str, **parts: Any) -> Any:
        case = schema[path][method].Case(**parts)
        response = case.call_and_validate(
            headers={"Authorization": f"token {TOKEN}"}, checks=CHECKS
        )
        return response.status_code, response.json()

    json_body: dict[str, Any] = {"media_type": "application/json"}
    full = {"spec": "2", "idempotency_key": "the whole host"}
    status, held = call("POST", "/leases", body=full, **json_body)
    assert status == 201
    status, same = call("POST", "/leases", body=full, **json_body)
    assert (status, same["lease"]["id"]) == (201, held["lease"]["id"])
    impatient = {"spec": "1/4", "patience_seconds": 0}
    status, error = call("POST", "/leases", body=impatient, **json_body)
    assert (status, error["code"]) == (409, "AcquireTimeout")
    lease = {"path_parameters": {"id": held["lease"]["id"]}}
    assert call("DELETE", "/leases/{id}", **lease)[0] == 200
    extension = {"body": {"seconds": 60}, **json_body}
    for verb in ("extend", "suspend", "resume", "pin", "unpin"):
        parts = {**lease, **(extension if verb == "extend" else {})}
        status, error = call("POST", f"/leases/{{id}}/{verb}", **parts)
        assert (status, error["code"]) == (409, "LeaseLost"), verb
    assert call("DELETE", "/leases/{id}", **lease)[0] == 200, "twice is once"


def test_whole_life_of_a_lease_keeps_to_the_description(schema: Any) -> None:
    def call(method: str, path: str, **parts: Any) -> Any:
        case = schema[path][method].Case(**parts)
        response = case.call_and_validate(
            headers={"Authorization": f"token {TOKEN}"}, checks=CHECKS
        )
        return response.status_code, response.json()

    status, first = call(
        "POST",
        "/leases",
        body={"spec": "2", "lease_seconds": 600},
        media_type="application/json",
    )
    assert status == 201
    status, second = call(
        "POST", "/leases", body={"spec": "1/4"}, media_type="application/json"
    )
    assert status == 202
    for path in (
        "/host",
        "/leases",
        "/queue",
        "/usage",
        "/events",
        "/report",
        "/bill",
        "/advice",
    ):
        assert call("GET", path)[0] == 200
    lease = {"id": first["lease"]["id"]}
    extend = call(
        "POST",
        "/leases/{id}/extend",
        path_parameters=lease,
        body={"seconds": 5},
        media_type="application/json",
    )
    assert extend[0] == 200
    assert (
        call("DELETE", "/queue/{id}", path_parameters={"id": second["request"]["id"]})[
            0
        ]
        == 200
    )
    assert call("DELETE", "/leases/{id}", path_parameters=lease)[0] == 200
    assert (
        call("POST", "/leases", body={"spec": "9"}, media_type="application/json")[0]
        == 409
    )
    assert call("GET", "/leases", query={"all": 1})[0] == 200


def test_whole_life_of_a_reservation_keeps_to_the_description(schema: Any) -> None:
    def call(method: str, path: str, **parts: Any) -> Any:
        case = schema[path][method].Case(**parts)
        response = case.call_and_validate(
            headers={"Authorization": f"token {TOKEN}"}, checks=CHECKS
        )
        return response.status_code, response.json()

    wish = {
        "name": "class",
        "spec": "1/8",
        "count": 8,
        "starts_at": 4e9,
        "ends_at": 4.1e9,
    }
    status, made = call(
        "POST", "/reservations", body=wish, media_type="application/json"
    )
    assert status == 201
    assert (
        call("POST", "/reservations", body=wish, media_type="application/json")[0]
        == 409
    ), "it overlaps the first"
    assert call("GET", "/reservations")[1] == {"reservations": [made]}
    assert call("GET", "/host")[1]["reservations"] == [made]
    assert (
        call("DELETE", "/reservations/{id}", path_parameters={"id": made["id"]})[0]
        == 200
    )
    assert (
        call("DELETE", "/reservations/{id}", path_parameters={"id": made["id"]})[0]
        == 404
    )
