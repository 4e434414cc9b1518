"""A hub whose users have Unix users of their own, as LocalProcessSpawner starts them."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.jupyterhub import Hub, HubUser, running_hub
from tests.fakes.other_users import unix_users

ALICE = "aistack-alice"
BOB = "aistack-bob"
FORBIDDEN = 403
SETTINGS = """
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
c.Spawner.environment = {
    "AISTACK_PROVIDERS": "simulated:1xH100-80GB",
    "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
}
"""


@pytest.fixture(scope="module")
def users(
    needs_users: None, open_folder: Path
) -> Iterator[dict[str, pwd.struct_passwd]]:
    with unix_users(open_folder / "home", ALICE, BOB) as made:
        yield made


@pytest.fixture(scope="module")
def hub(users: dict[str, pwd.struct_passwd], open_folder: Path) -> Iterator[Hub]:
    with running_hub(open_folder, [SETTINGS]) as running:
        yield running


@pytest.fixture(scope="module")
def alice(hub: Hub) -> HubUser:
    user = hub.login(ALICE)
    user.start_server()
    return user


def test_a_server_is_its_users_own(
    hub: Hub, alice: HubUser, users: dict[str, pwd.struct_passwd]
) -> None:
    server = hub.user(ALICE)["servers"][""]
    process = Path(f"/proc/{server['state']['pid']}")
    assert process.stat().st_uid == users[ALICE].pw_uid

    assert alice.call("GET", "aistack/api/v1/host").status_code == 200
    bob = hub.login(BOB)
    stranger = bob.call("GET", "aistack/api/v1/host", of=ALICE)
    assert stranger.status_code == FORBIDDEN
