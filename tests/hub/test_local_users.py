"""A hub whose users have Unix users of their own, as LocalProcessSpawner starts them:
the broker of the host knows them by their uid.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.host_broker import LiveBroker, live_broker
from tests.fakes.jupyterhub import Hub, HubUser, running_hub
from tests.fakes.other_users import unix_users
from tests.fakes.waiting import wait_until

from .asking import ask_for_kernel, leases, queue

ALICE = "aistack-alice"
BOB = "aistack-bob"
FORBIDDEN = 403
SETTINGS = """
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
c.Spawner.environment = {{
    "AISTACK_BROKER": "{broker}",
    "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
}}
"""


@pytest.fixture(scope="module")
def users(
    needs_users: None, open_folder: Path
) -> Iterator[dict[str, pwd.struct_passwd]]:
    with unix_users(open_folder / "home", ALICE, BOB) as made:
        yield made


@pytest.fixture(scope="module")
def host(open_folder: Path) -> Iterator[LiveBroker]:
    folder = open_folder / "broker"
    folder.mkdir()
    providers = {"AISTACK_PROVIDERS": "simulated:1xH100-80GB"}
    with live_broker(folder, environment=providers) as broker:
        yield broker


@pytest.fixture(scope="module")
def hub(
    users: dict[str, pwd.struct_passwd], host: LiveBroker, open_folder: Path
) -> Iterator[Hub]:
    with running_hub(open_folder, SETTINGS.format(broker=host.path)) as running:
        yield running


@pytest.fixture(scope="module")
def alice(hub: Hub) -> HubUser:
    user = hub.login(ALICE)
    user.start_server()
    return user


@pytest.fixture(scope="module")
def bob(hub: Hub) -> HubUser:
    user = hub.login(BOB)
    user.start_server()
    return user


def test_a_server_is_its_users_own(
    hub: Hub, alice: HubUser, bob: HubUser, users: dict[str, pwd.struct_passwd]
) -> None:
    server = hub.user(ALICE)["servers"][""]
    process = Path(f"/proc/{server['state']['pid']}")
    assert process.stat().st_uid == users[ALICE].pw_uid

    assert alice.call("GET", "aistack/api/v1/host").status_code == 200
    stranger = bob.call("GET", "aistack/api/v1/host", of=ALICE)
    assert stranger.status_code == FORBIDDEN


def test_users_wait_for_each_other_and_cannot_take(
    alice: HubUser, bob: HubUser
) -> None:
    held = ask_for_kernel(alice, "1")["lease"]
    assert held["holder"]["user"] == ALICE
    waiting = ask_for_kernel(bob, "1/2")
    assert waiting["lease"] is None

    refused = bob.call("DELETE", f"aistack/api/v1/leases/{held['id']}")
    assert refused.status_code == FORBIDDEN
    released = alice.call("DELETE", f"aistack/api/v1/leases/{held['id']}")
    assert released.ok, released.text
    wait_until(lambda: waiting["request"]["id"] not in queue(bob))
    (lease,) = leases(alice)
    assert lease["holder"]["user"] == BOB


def test_what_servers_hold_outlives_a_crash_of_the_hub_and_ends_with_them(
    hub: Hub, host: LiveBroker, bob: HubUser
) -> None:
    kernel_lease = ask_for_kernel(bob, "1/4")["lease"]
    hub.kill()
    hub.start()
    assert hub.user(BOB)["servers"][""]["ready"], "the hub has adopted the server"
    assert kernel_lease["id"] in {lease["id"] for lease in leases(bob)}

    bob.stop_server()
    root = host.speaker()
    wait_until(lambda: BOB not in held_by(root.ask("leases")["leases"]))


def held_by(shown: list[dict[str, dict[str, str]]]) -> set[str]:
    return {lease["holder"]["user"] for lease in shown}
