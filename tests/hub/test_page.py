from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.core.model.roles import RoleSettings
from jupyter_aistack.hub.host_view import HostView, read_host
from jupyter_aistack.hub.page import DONE, Frame, error_page, host_page
from jupyter_aistack.testing import simulated_broker

FRAME = Frame(
    prefix="/services/aistack/",
    hub="/hub/",
    xsrf='<input type="hidden" name="_xsrf" value="x">',
)
ANN = Caller(user="ann", uid=1000, pid=100, kernel_id="kernel-1", label="a<b>.ipynb")
BEN = Caller(user="ben", uid=1001, pid=200, kernel_id="kernel-2", label="ben.ipynb")
BOSS = Caller(user="boss", uid=1002, pid=300)
OPERATOR = Caller(user="op", uid=1003, pid=400)
TEACHER = Caller(user="teacher", uid=1004, pid=500)


@pytest.fixture
def service() -> Service:
    """A host whose GPU ann holds, and ben waits for."""
    roles = RoleSettings(
        admins=frozenset({"boss"}),
        operators=frozenset({"op"}),
        managers={"default": frozenset({"teacher"})},
    )
    service = Service(simulated_broker("1xH100-80GB"), roles=roles, show_names=False)
    service.call("request", {"spec": "1"}, ANN)
    service.call("request", {"spec": "1/2"}, BEN)
    return service


def view(service: Service, caller: Caller) -> HostView:
    def ask(verb: str, **payload: Any) -> Any:
        return service.call(verb, payload, caller)

    return read_host(ask, caller.user, service.broker.clock())


def page(service: Service, caller: Caller, frame: Frame = FRAME) -> str:
    return host_page(view(service, caller), frame)


class Reader(HTMLParser):
    """The texts and forms of a page, and whether all of its elements are closed."""

    VOID = frozenset({"meta", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.actions: list[str] = []
        self.fields: list[Mapping[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "form":
            self.actions.append(attributes["action"] or "")
        if tag == "input":
            self.fields.append(attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def actions(service: Service, caller: Caller) -> set[str]:
    reader = Reader(page(service, caller))
    assert reader.open == []
    return {action.removeprefix(FRAME.prefix) for action in reader.actions}


def test_users_only_read_and_see_no_names(service: Service) -> None:
    assert actions(service, BEN) == set()
    html = page(service, BEN)
    assert "read only" in html
    assert "someone" in html
    assert "ann" not in re.findall(r">([^<]*)<", html)
    assert "ben.ipynb" in html


def test_buttons_are_for_those_who_may(service: Service) -> None:
    assert actions(service, BOSS) == {"release", "cancel", "drain"}
    assert actions(service, OPERATOR) == {"release", "cancel", "drain"}
    assert actions(service, TEACHER) == {"release", "cancel"}
    assert "teacher: manager of default" in page(service, TEACHER)


def test_every_form_is_known_to_come_from_this_page(service: Service) -> None:
    reader = Reader(page(service, BOSS))
    tokens = [field for field in reader.fields if field.get("name") == "_xsrf"]
    assert len(tokens) == len(reader.actions) == 3


def test_a_drained_device_says_so_and_can_be_undrained(service: Service) -> None:
    device = service.call("host", {}, BOSS)["devices"][0]["id"]
    payload = {"device": device, "reason": "a fan <is> replaced"}
    service.call("drain", payload, OPERATOR)
    assert actions(service, OPERATOR) == {"release", "cancel", "undrain"}
    assert "drained by op: a fan &lt;is&gt; replaced" in page(service, OPERATOR)


def test_what_users_write_is_no_markup(service: Service) -> None:
    html = page(service, BOSS)
    assert "a&lt;b&gt;.ipynb" in html
    assert "a<b>" not in html


def test_what_was_done_is_told_and_nothing_else(service: Service) -> None:
    for action, sentence in DONE.items():
        assert sentence in page(service, BOSS, _frame(done=action))
    assert "<script>" not in page(service, BOSS, _frame(done="<script>"))
    assert "no &lt;b&gt;" in page(service, BOSS, _frame(problem="no <b>"))


def _frame(**changes: str) -> Frame:
    return Frame(prefix=FRAME.prefix, hub=FRAME.hub, xsrf=FRAME.xsrf, **changes)


def test_an_older_broker_that_names_no_roles_lets_nobody_change(
    service: Service,
) -> None:
    def ask(verb: str, **payload: Any) -> Any:
        answer = dict(service.call(verb, payload, BOSS))
        answer.pop("roles", None)
        return answer

    shown = read_host(ask, "boss", service.broker.clock())
    assert not shown.rights.is_over_all
    assert Reader(host_page(shown, FRAME)).actions == []


def test_the_week_is_told_by_user(service: Service) -> None:
    line = {
        "user": "ann",
        "gpu_hours": 2.25,
        "gpu_hours_used": None,
        "cpu_hours": 0.0,
    }

    def ask(verb: str, **payload: Any) -> Any:
        if verb == "report":
            assert payload == {"all": True, "week": "1970-W03"}
            return {"lines": [line, {**line, "user": "ben", "gpu_hours": 7.0}]}
        return service.call(verb, payload, BOSS)

    week = read_host(ask, "boss", service.broker.clock()).week
    assert [(row.user, row.gpu_hours, row.used_hours) for row in week] == [
        ("ben", "7.0", "n/a"),
        ("ann", "2.2", "n/a"),
    ]


def test_a_page_without_a_broker_says_why() -> None:
    html = error_page("the host broker does not answer <now>", FRAME)
    assert 'role="alert">the host broker does not answer &lt;now&gt;<' in html
    assert Reader(html).open == []
