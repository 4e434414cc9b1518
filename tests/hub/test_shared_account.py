"""A hub whose servers all run under its own Unix account, as those in containers do: the
broker of the host knows users by tokens of the hub, and the hub shows its page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.fakes.host_broker import LiveBroker, live_broker
from tests.fakes.jupyterhub import Hub, HubUser, running_hub
from tests.fakes.live_server import free_port
from tests.fakes.other_users import unix_users
from tests.fakes.waiting import wait_until
from tests.paths import ROOT

from .asking import ask_for_kernel, leases, queue

ACCOUNT = "aistack-hub"
SPAWN_PAGE = "a-token-of-the-spawn-page"
FORBIDDEN = 403
SETTINGS = """
import sys

from jupyter_aistack.hub.spawn_options import SpawnOptions

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/home/{{username}}"
c.Spawner.environment = {{
    "AISTACK_BROKER": "{broker}",
    "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
}}
options = SpawnOptions(broker="{broker}", token="{token}")
c.Spawner.options_form = options.form
c.Spawner.options_from_form = options.from_form
c.Spawner.apply_user_options = options.apply
services.append({{"name": "aistack-spawn", "api_token": "{token}"}})
c.JupyterHub.custom_scopes = {{
    "custom:aistack:admin": {{"description": "Change what others hold on GPUs"}},
}}
c.JupyterHub.load_groups = {{"gpu-admins": {{"users": ["boss"]}}}}
services.append({{
    "name": "aistack",
    "url": "http://127.0.0.1:{port}",
    "command": [sys.executable, "-m", "jupyter_aistack.hub"],
    "environment": {{"AISTACK_BROKER": "{broker}", "PYTHONPATH": "{root}"}},
    "oauth_client_allowed_scopes": ["custom:aistack:admin"],
    "oauth_no_confirm": True,
}})
roles.append({{
    "name": "user", "scopes": ["self", "access:services!service=aistack"],
}})
roles.append({{
    "name": "aistack-admin",
    "scopes": ["custom:aistack:admin"],
    "groups": ["gpu-admins"],
}})
"""
"""Of the hub."""
POLICY = """
c.AIStack.hub_url = "{hub_url}"
c.AIStack.hub_accounts = ["{account}"]
c.AIStack.show_names = False
"""
"""Of the host's broker."""


@pytest.fixture(scope="module")
def account(needs_users: None, open_folder: Path) -> Iterator[int]:
    """The uid that hub, page and servers share."""
    with unix_users(open_folder / "home", ACCOUNT) as users:
        yield users[ACCOUNT].pw_uid


@pytest.fixture(scope="module")
def hub(account: int, open_folder: Path) -> Iterator[Hub]:
    folder = open_folder / "hub"
    folder.mkdir()
    settings = SETTINGS.format(
        folder=folder,
        broker=open_folder / "broker" / "broker.sock",
        port=free_port(),
        root=ROOT,
        token=SPAWN_PAGE,
    )
    with running_hub(folder, settings, uid=account) as running:
        yield running


@pytest.fixture(scope="module")
def host(hub: Hub, open_folder: Path) -> Iterator[LiveBroker]:
    folder = open_folder / "broker"
    folder.mkdir()
    config = folder / "aistack_config.py"
    config.write_text(POLICY.format(hub_url=hub.api_url, account=ACCOUNT))
    providers = {"AISTACK_PROVIDERS": "simulated:1xH100-80GB"}
    options = ("--config", str(config))
    with live_broker(folder, *options, environment=providers) as broker:
        yield broker


@pytest.fixture(scope="module")
def alice(hub: Hub, host: LiveBroker) -> HubUser:
    return hub.login("alice")


def page(user: HubUser) -> requests.Response:
    return user.session.get(f"{user.hub.url}/services/aistack/", timeout=60)


def test_the_page_is_for_users_of_the_hub(hub: Hub, alice: HubUser) -> None:
    stranger = requests.get(f"{hub.url}/services/aistack/", timeout=60)
    assert "/hub/login" in stranger.url
    shown = page(alice)
    assert shown.status_code == 200
    assert "alice: read only" in shown.text
    assert "GPU 0: NVIDIA H100-80GB (simulated)" in shown.text
    assert "<form" not in shown.text
    policy = shown.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_servers_of_one_account_are_different_users(
    hub: Hub, host: LiveBroker, alice: HubUser
) -> None:
    alice.start_server()
    bob = hub.login("bob")
    bob.start_server()
    held = ask_for_kernel(alice, "1")["lease"]
    assert held["holder"]["user"] == "alice"
    waiting = ask_for_kernel(bob, "1/2")
    assert waiting["lease"] is None

    assert [lease["holder"]["user"] for lease in leases(bob)] == ["someone"]
    refused = bob.call("DELETE", f"aistack/api/v1/leases/{held['id']}")
    assert refused.status_code == FORBIDDEN
    shown = page(alice).text
    assert "someone" in shown, "who waits has no name for others"

    released = alice.call("DELETE", f"aistack/api/v1/leases/{held['id']}")
    assert released.ok, released.text
    request_id = waiting["request"]["id"]
    wait_until(lambda: request_id not in queue(bob))
    (lease,) = leases(bob)
    assert lease["holder"]["user"] == "bob"


def test_the_spawn_page_offers_what_fits_and_kernels_ask_for_it(
    hub: Hub, host: LiveBroker
) -> None:
    carol = hub.login("carol")
    shown = carol.session.get(f"{hub.url}/hub/spawn", timeout=60)
    assert re.search(r"1/4 of a GPU\s*<small>fits now, on 1 GPU</small>", shown.text)
    form = {"_xsrf": carol.cookie("_xsrf", "/hub/"), "aistack_slice": "1/4"}
    carol.session.post(f"{hub.url}/hub/spawn", form, timeout=60)
    wait_until(carol.is_running, otherwise=hub.log)
    carol.open_page()

    started = carol.call("POST", "api/kernels", {"name": "aistack"})
    assert started.ok, started.text
    kernel_id = started.json()["id"]
    lease = wait_until(lambda: held_by_kernel(carol, kernel_id))
    assert (lease["spec"], lease["holder"]["user"]) == ("1/4", "carol")
    carol.stop_server()


def held_by_kernel(user: HubUser, kernel_id: str) -> dict[str, Any] | None:
    own = [lease for lease in leases(user) if lease["holder"]["id"] == kernel_id]
    return own[0] if own else None


def test_while_the_hub_is_down_its_users_go_on_and_strangers_are_refused(
    hub: Hub, host: LiveBroker, account: int
) -> None:
    known, unknown, revoked = (new_token(hub) for _ in range(3))
    path = f"users/alice/tokens/{revoked['id']}"
    assert hub.call("DELETE", path).ok
    refused = host.speaker(account, token=revoked["token"]).say("mine")["error"]
    assert "does not know the token" in refused["message"]

    alice = host.speaker(account, token=known["token"])
    lease = alice.request("1/4")
    hub.kill()
    assert alice.ask("release", lease_id=lease["id"])["state"] == "ended"
    stranger = host.speaker(account, token=unknown["token"])
    assert "the hub does not answer" in stranger.say("mine")["error"]["message"]
    hub.start()
    wait_until(lambda: "result" in stranger.say("mine"))


def new_token(hub: Hub) -> dict[str, str]:
    """A token of alice's, as the hub gives it out."""
    token: dict[str, str] = hub.call("POST", "users/alice/tokens", {}).json()
    return token
