"""A hub whose servers all run under its own Unix account, as those in containers do: the
broker of the host knows users by tokens of the hub, and the hub shows its page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
FORBIDDEN = 403
SETTINGS = """
import sys

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/home/{{username}}"
c.Spawner.environment = {{
    "AISTACK_BROKER": "{broker}",
    "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
}}
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
