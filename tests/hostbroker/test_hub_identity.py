from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from jupyter_aistack.exceptions import InvalidRequest, PermissionDenied
from jupyter_aistack.hostbroker import hub_identity
from jupyter_aistack.hostbroker.hub_identity import (
    MAX_KNOWN,
    RECHECK_SECONDS,
    RETRY_SECONDS,
    TRUST_SECONDS,
    HubIdentities,
    HubSilent,
    HubUser,
    asking,
    read_user,
)
from jupyter_aistack.testing import ManualClock
from tests.fakes.hub_api import Answering

ALICE = HubUser(name="alice", groups=frozenset({"profs"}))


@dataclass
class ScriptedHub:
    """Knows some tokens, or is silent."""

    users: dict[str, HubUser] = field(default_factory=lambda: {"t-alice": ALICE})
    is_silent: bool = False
    asked: list[str] = field(default_factory=list)

    def __call__(self, token: str) -> HubUser | None:
        self.asked.append(token)
        if self.is_silent:
            raise HubSilent("connection refused")
        return self.users.get(token)


@pytest.fixture
def hub() -> ScriptedHub:
    return ScriptedHub()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def identities(hub: ScriptedHub, clock: ManualClock) -> HubIdentities:
    return HubIdentities(hub, clock=clock)


def test_the_hub_is_asked_once_in_a_while(
    identities: HubIdentities, hub: ScriptedHub, clock: ManualClock
) -> None:
    assert [identities.user_of("t-alice") for _ in range(3)] == [ALICE] * 3
    assert hub.asked == ["t-alice"]
    clock.advance(RECHECK_SECONDS)
    identities.user_of("t-alice")
    assert len(hub.asked) == 2


def test_a_token_that_is_revoked_is_refused_within_a_minute(
    identities: HubIdentities, hub: ScriptedHub, clock: ManualClock
) -> None:
    identities.user_of("t-alice")
    hub.users.clear()
    clock.advance(60)
    with pytest.raises(PermissionDenied, match="does not know the token"):
        identities.user_of("t-alice")


def test_what_the_hub_says_anew_counts(
    identities: HubIdentities, hub: ScriptedHub, clock: ManualClock
) -> None:
    identities.user_of("t-alice")
    hub.users["t-alice"] = HubUser(name="alice", is_admin=True)
    clock.advance(RECHECK_SECONDS)
    assert identities.user_of("t-alice").is_admin


def test_while_the_hub_is_down_known_tokens_are_good_for_five_minutes(
    identities: HubIdentities, hub: ScriptedHub, clock: ManualClock
) -> None:
    identities.user_of("t-alice")
    hub.is_silent = True
    clock.advance(TRUST_SECONDS - 1)
    assert identities.user_of("t-alice") == ALICE
    with pytest.raises(PermissionDenied, match=r"does not answer .connection refused"):
        identities.user_of("t-bob")
    clock.advance(1)
    with pytest.raises(PermissionDenied, match=r"not vouched .* in the last 5 min"):
        identities.user_of("t-alice")
    hub.is_silent = False
    clock.advance(RETRY_SECONDS)
    assert identities.user_of("t-alice") == ALICE


def test_a_silent_hub_is_not_asked_for_every_call(
    identities: HubIdentities, hub: ScriptedHub, clock: ManualClock
) -> None:
    identities.user_of("t-alice")
    hub.is_silent = True
    clock.advance(RECHECK_SECONDS)
    for _ in range(5):
        identities.user_of("t-alice")
    assert len(hub.asked) == 2


def test_a_token_the_hub_has_refused_is_no_better_while_it_is_down(
    identities: HubIdentities, hub: ScriptedHub, clock: ManualClock
) -> None:
    with pytest.raises(PermissionDenied):
        identities.user_of("t-eve")
    hub.is_silent = True
    clock.advance(RECHECK_SECONDS)
    with pytest.raises(PermissionDenied, match="does not know the token"):
        identities.user_of("t-eve")


def test_calls_that_come_together_ask_once(clock: ManualClock) -> None:
    begun = threading.Event()
    go_on = threading.Event()
    asked: list[str] = []

    def slow_hub(token: str) -> HubUser:
        asked.append(token)
        begun.set()
        assert go_on.wait(60)
        return ALICE

    identities = HubIdentities(slow_hub, clock=clock)
    users: list[HubUser] = []
    threads = [
        threading.Thread(target=lambda: users.append(identities.user_of("t-alice")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    go_on.set()
    for thread in threads:
        thread.join()
    assert (asked, users) == (["t-alice"], [ALICE] * 4)


def test_invented_tokens_take_no_more_than_so_much_memory(
    identities: HubIdentities, hub: ScriptedHub
) -> None:
    for number in range(MAX_KNOWN + 10):
        with pytest.raises(PermissionDenied):
            identities.user_of(f"t-{number}")
    assert len(identities) == MAX_KNOWN


# -- what a hub answers ----------------------------------------------------------------


def test_groups_and_our_own_scopes_are_read() -> None:
    model = {
        "kind": "user",
        "name": "alice",
        "groups": ["profs"],
        "scopes": ["custom:aistack:operator", "custom:other", "access:servers"],
    }
    assert read_user(model) == HubUser(
        name="alice", groups=frozenset({"profs", "custom:aistack:operator"})
    )
    admin = read_user({**model, "scopes": ["custom:aistack:admin"]})
    assert admin.is_admin


def test_a_service_is_no_user_of_its_name() -> None:
    assert read_user({"kind": "service", "name": "culler"}).name == "service:culler"


@pytest.mark.parametrize("model", [None, [], {}, {"name": 3}, {"name": ""}, "alice"])
def test_an_answer_without_a_name_is_none(model: Any) -> None:
    with pytest.raises(HubSilent):
        read_user(model)


def test_a_name_cannot_forge_a_line_of_the_log() -> None:
    assert read_user({"name": "a\nb"}).name == "a\\nb"


@pytest.mark.parametrize("address", ["", "hub", "ftp://box/hub/api", "http://"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="hub_url"):
        asking(address)


# -- over HTTP -------------------------------------------------------------------------


def test_a_hub_is_asked_with_the_token(answering: Answering) -> None:
    body = json.dumps({"name": "alice", "kind": "user", "groups": ["profs"]}).encode()
    ask = asking(
        answering(lambda token: (200 if token == "t-alice" else 403, {}, body))
    )
    assert ask("t-alice") == ALICE
    assert ask("t-eve") is None
    assert ask("t-alice\r\nHost: other") is None


def test_a_token_is_not_sent_where_the_hub_redirects(
    answering: Answering,
) -> None:
    seen: list[str] = []

    def other(token: str) -> tuple[int, dict[str, str], bytes]:
        seen.append(token)
        return 200, {}, b'{"name": "root"}'

    elsewhere = answering(other)
    ask = asking(answering(lambda _: (302, {"Location": f"{elsewhere}/user"}, b"")))
    with pytest.raises(HubSilent, match="answers 302"):
        ask("t-alice")
    assert seen == []


@pytest.mark.parametrize(
    ("status", "body"), [(500, b""), (404, b""), (200, b"<html>"), (200, b"[]")]
)
def test_what_is_no_answer_of_a_hub_is_silence(
    answering: Answering, status: int, body: bytes
) -> None:
    with pytest.raises(HubSilent):
        asking(answering(lambda _: (status, {}, body)))("t-alice")


def test_a_hub_that_is_not_there_is_silence(
    monkeypatch: pytest.MonkeyPatch, answering: Answering
) -> None:
    monkeypatch.setattr(hub_identity, "HUB_SECONDS", 0.5)
    with pytest.raises(HubSilent, match="refused"):
        asking("http://127.0.0.1:1/hub/api")("t-alice")
