"""A hub whose servers all run under its own Unix account, and the broker of their host,
which knows users by tokens of the hub; the hub shows its page.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.host_broker import LiveBroker, live_broker
from tests.fakes.jupyterhub import Hub, running_hub
from tests.fakes.live_server import free_port
from tests.fakes.other_users import unix_users
from tests.paths import ROOT

ACCOUNT = "aistack-hub"
SPAWN_PAGE = "a-token-of-the-spawn-page"
WITHOUT_LAB = """
c.Spawner.environment["JUPYTERHUB_SINGLEUSER_APP"] = "jupyter_server.serverapp.ServerApp"
"""
SETTINGS = """
import sys

from jupyter_aistack.hub.spawn_options import SpawnOptions

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/home/{{username}}"
c.Spawner.environment = {{"AISTACK_BROKER": "{broker}"}}
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


@dataclass(frozen=True, kw_only=True)
class SharedHub:
    """The hub, and the host that its servers run on.

    Attributes:
        hub: the hub.
        host: the broker of the host.
        account: the uid that hub, page and servers share.
    """

    hub: Hub
    host: LiveBroker
    account: int

    def home(self, user: str) -> Path:
        """The home of a user of the hub."""
        return self.hub.folder / "home" / user


@contextmanager
def shared_hub(folder: Path, settings: str = WITHOUT_LAB) -> Iterator[SharedHub]:
    """Both, in a folder that all users may go to; `settings` are more of the hub's."""
    for name in ("hub", "broker"):
        (folder / name).mkdir()
    text = SETTINGS.format(
        folder=folder / "hub",
        broker=folder / "broker" / "broker.sock",
        port=free_port(),
        root=ROOT,
        token=SPAWN_PAGE,
    )
    with unix_users(folder / "home", ACCOUNT) as users:
        account = users[ACCOUNT].pw_uid
        with (
            running_hub(folder / "hub", text + settings, uid=account) as hub,
            _broker(folder / "broker", hub) as host,
        ):
            yield SharedHub(hub=hub, host=host, account=account)


@contextmanager
def _broker(folder: Path, hub: Hub) -> Iterator[LiveBroker]:
    config = folder / "aistack_config.py"
    config.write_text(POLICY.format(hub_url=hub.api_url, account=ACCOUNT))
    providers = {"AISTACK_PROVIDERS": "simulated:1xH100-80GB"}
    with live_broker(folder, "--config", str(config), environment=providers) as broker:
        yield broker
