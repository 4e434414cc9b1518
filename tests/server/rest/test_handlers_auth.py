"""Nobody gets in without a login, and the authorizer is asked exactly what each verb
says of itself.
"""

from __future__ import annotations

import inspect
import json
import warnings
from typing import Any, ClassVar

import pytest
from jupyter_server.auth.authorizer import Authorizer
from jupyter_server.utils import JupyterServerAuthWarning
from tornado.httpclient import HTTPClientError
from traitlets.config import Config

from jupyter_aistack.server.realtime.websocket import UpdatesWebSocket
from jupyter_aistack.server.rest.handlers import ROUTES
from jupyter_aistack.system.users import current_user
from tests.fakes.rest_server import Ask


class RecordingAuthorizer(Authorizer):
    """Writes down what it is asked, and says no to what is in `denied`."""

    asked: ClassVar[list[tuple[str, str]]] = []
    denied: ClassVar[set[tuple[str, str]]] = set()

    def is_authorized(
        self, handler: Any, user: Any, action: str, resource: str
    ) -> bool:
        self.asked.append((action, resource))
        return (action, resource) not in self.denied


@pytest.fixture
def jp_server_config(jp_server_config: Config) -> Config:
    RecordingAuthorizer.asked.clear()
    RecordingAuthorizer.denied.clear()
    jp_server_config.ServerApp.authorizer_class = RecordingAuthorizer
    jp_server_config.AIStack.admins = [current_user()]
    return jp_server_config


API = "aistack/api/v1"
CLASS = {"name": "class", "spec": "1/8", "starts_at": 4e9, "ends_at": 4.1e9}
MOVES = ("suspend", "resume", "pin", "unpin")
MATRIX = [
    ("GET", f"{API}/host", None, "read", "aistack:host"),
    ("GET", f"{API}/hosts", None, "read", "aistack:host"),
    ("GET", f"{API}/leases", None, "read", "aistack:leases"),
    ("POST", f"{API}/leases", {"spec": "1/4"}, "write", "aistack:leases"),
    ("DELETE", f"{API}/leases/l-none", None, "write", "aistack:leases"),
    ("POST", f"{API}/leases/l-none/extend", {"seconds": 1}, "write", "aistack:leases"),
    *(
        ("POST", f"{API}/leases/l-none/{verb}", None, "write", "aistack:leases")
        for verb in MOVES
    ),
    ("POST", f"{API}/devices/0/drain", {}, "write", "aistack:devices"),
    ("DELETE", f"{API}/devices/0/drain", None, "write", "aistack:devices"),
    ("POST", f"{API}/devices/0/quarantine", {}, "write", "aistack:devices"),
    ("GET", f"{API}/queue", None, "read", "aistack:queue"),
    ("DELETE", f"{API}/queue/r-none", None, "write", "aistack:queue"),
    ("GET", f"{API}/reservations", None, "read", "aistack:reservations"),
    ("POST", f"{API}/reservations", CLASS, "write", "aistack:reservations"),
    ("DELETE", f"{API}/reservations/v-none", None, "write", "aistack:reservations"),
    ("GET", f"{API}/usage", None, "read", "aistack:usage"),
    ("GET", f"{API}/report", None, "read", "aistack:report"),
    ("GET", f"{API}/bill", None, "read", "aistack:report"),
    ("GET", f"{API}/advice", None, "read", "aistack:report"),
    ("GET", f"{API}/events", None, "read", "aistack:events"),
    ("GET", f"{API}/openapi.json", None, "read", "aistack:host"),
    ("GET", "aistack/metrics", None, "read", "aistack:metrics"),
]
VERBS = ("get", "post", "put", "patch", "delete", "head")


async def fetch(
    jp_fetch: Any, method: str, path: str, body: Any, **options: Any
) -> Any:
    raw = None if body is None else json.dumps(body)
    try:
        return await jp_fetch(
            path, method=method, body=raw, allow_nonstandard_methods=True, **options
        )
    except HTTPClientError as error:
        return error.response


async def log_in(jp_fetch: Any, port: int) -> str:
    """The cookies a browser gets for the token; their name holds the host's, which must
    be the one sockets use.
    """
    here = {"Host": f"localhost:{port}"}
    response = await jp_fetch("api", "status", headers=dict(here))
    cookie = "; ".join(c.split(";")[0] for c in response.headers.get_list("Set-Cookie"))
    assert (
        await jp_fetch(
            "api", "status", headers={**here, "Authorization": "", "Cookie": cookie}
        )
    ).code == 200
    return cookie


@pytest.mark.parametrize(("method", "path", "body", "action", "resource"), MATRIX)
async def test_verb_asks_for_its_own_action_and_resource(
    server: Any,
    jp_fetch: Any,
    method: str,
    path: str,
    body: Any,
    action: str,
    resource: str,
) -> None:
    response = await fetch(jp_fetch, method, path, body)
    assert response.code in (200, 201, 404, 409)
    assert RecordingAuthorizer.asked == [(action, resource)]


@pytest.mark.parametrize(("method", "path", "body", "action", "resource"), MATRIX)
async def test_verb_is_forbidden_when_the_authorizer_says_no(
    server: Any,
    jp_fetch: Any,
    method: str,
    path: str,
    body: Any,
    action: str,
    resource: str,
) -> None:
    RecordingAuthorizer.denied.add((action, resource))
    response = await fetch(jp_fetch, method, path, body)
    assert response.code == 403
    assert json.loads(response.body)["code"] == "Forbidden"
    assert server.web_app.settings["aistack"].is_built is False


@pytest.mark.parametrize(("method", "path", "body", "action", "resource"), MATRIX)
async def test_verb_is_forbidden_without_a_login(
    server: Any,
    jp_fetch: Any,
    method: str,
    path: str,
    body: Any,
    action: str,
    resource: str,
) -> None:
    response = await fetch(
        jp_fetch,
        method,
        path,
        body,
        headers={"Authorization": ""},
        follow_redirects=False,
    )
    assert response.code == 403
    assert RecordingAuthorizer.asked == []


def test_matrix_covers_every_verb_of_every_route() -> None:
    offered = {
        (verb.upper(), route)
        for route, handler in ROUTES
        for verb in VERBS
        if verb in vars(handler)
    }
    assert len(offered) == len(MATRIX)


def test_no_two_verbs_share_a_decorated_method() -> None:
    methods = [
        getattr(handler, verb)
        for _, handler in ROUTES
        for verb in VERBS
        if verb in vars(handler)
    ]
    assert len({id(method) for method in methods}) == len(methods)
    inherited = [
        verb
        for base in inspect.getmro(ROUTES[0][1])[1:2]
        for verb in VERBS
        if verb in vars(base)
    ]
    assert inherited == []


async def test_stream_is_forbidden_without_a_login(
    server: Any, jp_ws_fetch: Any
) -> None:
    with pytest.raises(HTTPClientError) as caught:
        await jp_ws_fetch(API, "stream", headers={"Authorization": ""})
    assert caught.value.code == 403


@pytest.mark.parametrize(
    "resource", ["aistack:host", "aistack:leases", "aistack:queue", "aistack:usage"]
)
async def test_stream_is_forbidden_to_who_may_not_read_all_it_shows(
    server: Any, jp_ws_fetch: Any, resource: str
) -> None:
    RecordingAuthorizer.denied.add(("read", resource))
    with pytest.raises(HTTPClientError) as caught:
        await jp_ws_fetch(API, "stream")
    assert caught.value.code == 403


async def test_stream_from_a_page_elsewhere_is_refused_where_a_cookie_logs_in(
    server: Any, jp_ws_fetch: Any, jp_fetch: Any, jp_http_port: int
) -> None:
    cookie = await log_in(jp_fetch, jp_http_port)
    headers = {
        "Authorization": "",
        "Cookie": cookie,
        "Origin": "https://elsewhere.example",
    }
    with pytest.raises(HTTPClientError) as caught:
        await jp_ws_fetch(API, "stream", headers=headers)
    assert caught.value.code == 403
    here = {**headers, "Origin": f"http://localhost:{jp_http_port}"}
    socket = await jp_ws_fetch(API, "stream", headers=here)
    socket.close()


async def test_post_with_a_cookie_needs_the_xsrf_token(
    server: Any, jp_fetch: Any, jp_http_port: int, ask: Ask
) -> None:
    cookie = await log_in(jp_fetch, jp_http_port)
    headers = {
        "Host": f"localhost:{jp_http_port}",
        "Authorization": "",
        "Cookie": cookie,
    }
    response = await fetch(
        jp_fetch, "POST", f"{API}/leases", {"spec": "1/4"}, headers=headers
    )
    assert response.code == 403
    assert "_xsrf" in json.loads(response.body)["message"]
    assert (await ask("GET", "leases"))[1] == {"leases": []}


def test_server_finds_no_handler_without_authentication(
    jp_configurable_serverapp: Any, jp_server_config: Config
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        app = jp_configurable_serverapp(config=jp_server_config)
    assert [
        str(w.message)
        for w in caught
        if issubclass(w.category, JupyterServerAuthWarning)
    ] == []
    assert "aistack" in app.web_app.settings
    assert UpdatesWebSocket.get.__dict__["__allow_unauthenticated"] is False
