"""Processes of an account that the users of a hub share, as the host broker sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.hostbroker.hub_accounts import HubAccounts
from tests.fakes.host_broker import ALICE as SHARED
from tests.fakes.host_broker import BOB as OTHER
from tests.fakes.host_broker import LiveBroker, live_broker
from tests.fakes.hub_api import by_token, hub_api
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become several users"
)


@pytest.fixture
def tokens() -> dict[str, dict[str, Any]]:
    """What the hub knows."""
    return {
        "t-ann": {"name": "ann", "kind": "user", "groups": [], "scopes": []},
        "t-ben": {"name": "ben", "kind": "user", "groups": ["profs"], "scopes": []},
        "t-eve": {
            "name": "eve",
            "kind": "user",
            "groups": [],
            "scopes": ["custom:aistack:admin"],
        },
        "t-uid": {"name": f"uid-{OTHER}", "kind": "user", "groups": [], "scopes": []},
    }


@pytest.fixture
def host(folder: Path, tokens: dict[str, dict[str, Any]]) -> Iterator[LiveBroker]:
    with hub_api(by_token(tokens)) as address:
        config = folder / "aistack_config.py"
        config.write_text(
            f"c.AIStack.hub_url = {address!r}\n"
            f"c.AIStack.hub_accounts = ['uid-{SHARED}', 'root']\n"
            "c.AIStack.operators = ['@profs']\n"
        )
        with live_broker(folder, "--config", str(config)) as broker:
            yield broker


def test_each_user_of_the_hub_is_somebody_else(host: LiveBroker) -> None:
    ann = host.speaker(SHARED, token="t-ann")
    other = host.speaker(SHARED, token="t-ben")
    lease = ann.request()
    assert lease["holder"]["user"] == "ann"
    assert ann.ask("mine")["leases"][0]["id"] == lease["id"]
    assert other.ask("mine")["leases"] == []


def test_without_a_token_nobody_acts_for_the_shared_account(host: LiveBroker) -> None:
    refused = host.speaker(SHARED).say("host")["error"]
    assert refused["code"] == "PermissionDenied"
    assert "shows no token" in refused["message"]
    invented = host.speaker(SHARED, token="t-nobody").say("host")["error"]
    assert "does not know the token" in invented["message"]
    assert f"refused host to uid-{SHARED}" in host.log


def test_a_token_counts_for_no_other_account(host: LiveBroker) -> None:
    """Who has got hold of a token is still who the operating system says."""
    thief = host.speaker(OTHER, token="t-eve")
    assert thief.request()["holder"]["user"] == f"uid-{OTHER}"


def test_nobody_at_the_hub_is_called_as_users_without_a_login_are(
    host: LiveBroker,
) -> None:
    lease = host.speaker(OTHER).request()
    refused = host.speaker(SHARED, token="t-uid").say("release", lease_id=lease["id"])
    assert "have the hub give it another name" in refused["error"]["message"]


def test_groups_and_scopes_of_the_hub_give_roles(host: LiveBroker) -> None:
    lease = host.speaker(SHARED, token="t-ann").request()
    plain = host.speaker(OTHER)
    assert plain.say("release", lease_id=lease["id"])["error"]
    operator = host.speaker(SHARED, token="t-ben")
    assert operator.ask("release", lease_id=lease["id"])["state"] == "ended"
    reservation = {"name": "class", "spec": "1", "count": 1, "queue": "default"}
    times = {"starts_at": 4e9, "ends_at": 4e9 + 60}
    assert operator.say("reserve", **reservation, **times)["error"]
    admin = host.speaker(SHARED, token="t-eve")
    assert admin.ask("reserve", **reservation, **times)


def test_a_service_of_root_acts_for_the_users_whose_tokens_it_shows(
    host: LiveBroker,
) -> None:
    lease = host.speaker(SHARED, token="t-ann").request()
    for_a_user = host.speaker(token="t-ann")
    theirs = host.speaker(SHARED, token="t-ben").request()
    assert for_a_user.say("release", lease_id=theirs["id"])["error"]
    assert for_a_user.ask("release", lease_id=lease["id"])["state"] == "ended"
    root = host.speaker()
    assert root.ask("release", lease_id=theirs["id"])["state"] == "ended"


def test_a_server_speaks_for_kernels_of_its_user(host: LiveBroker) -> None:
    server = host.speaker(SHARED, token="t-ann")
    kernel = host.speaker(SHARED)
    caller = {"pid": kernel.pid, "kernel_id": "k-1", "kernel_pid": kernel.pid}
    answer = server.say("request", caller=caller, spec="1/4")
    assert answer["result"]["lease"]["holder"]["user"] == "ann"


def test_accounts_are_taken_over_from_a_file_that_changes(host: LiveBroker) -> None:
    config = host.folder / "aistack_config.py"
    config.write_text("c.AIStack.operators = []\n")
    plain = host.speaker(SHARED)
    wait_until(lambda: "result" in plain.say("host"))
    shared = host.speaker(SHARED, token="t-ann")
    assert shared.request()["holder"]["user"] == f"uid-{SHARED}"


def test_accounts_without_a_hub_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="hub_url"):
        HubAccounts("", frozenset({"jovyan"}))
