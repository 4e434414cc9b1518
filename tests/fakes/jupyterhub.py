"""A JupyterHub with its proxy as processes of their own, and its users as browsers are:
with a login, cookies and a page that has been opened.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.fakes.live_server import free_port
from tests.fakes.other_users import as_user, starting_users
from tests.fakes.waiting import wait_until
from tests.paths import ROOT

ADMIN = "hub-admin-of-tests"
"""A service that may do everything at the hub, as the tests do."""
PASSWORD = "of-all-users"
PROXY = Path(sys.prefix) / "proxy" / "node_modules" / ".bin" / "configurable-http-proxy"
"""Where ``make`` installs it."""
SECONDS = 60.0
STOP_SECONDS = 20.0


def proxy_program() -> str:
    """The proxy of JupyterHub; empty where it is not installed."""
    return str(PROXY) if PROXY.exists() else shutil.which(PROXY.name) or ""


@dataclass
class Hub:
    """A hub that may be killed and started again.

    Attributes:
        folder: where its files are, open to all users.
        settings: its configuration beside what every hub of the tests has.
        environment: what its process gets beside the environment of the tests.
        uid: the user that runs it; None for the tests' own, as root the one who can
            start servers as their users.
    """

    folder: Path
    settings: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    uid: int | None = None
    port: int = field(default_factory=free_port)
    hub_port: int = field(default_factory=free_port)
    proxy_port: int = field(default_factory=free_port)
    admin_token: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What users open."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        """What services and servers call, past the proxy."""
        return f"http://127.0.0.1:{self.hub_port}/hub/api"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        config = self.folder / "jupyterhub_config.py"
        config.write_text(self._config())
        command = [sys.executable, "-m", "jupyterhub", f"--config={config}"]
        if self.uid is None:
            command = starting_users(command)
        else:
            os.chown(self.folder, self.uid, self.uid)
            command = as_user(self.uid, command)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._is_up, SECONDS, self.log)

    def stop(self) -> None:
        """End it as an administrator does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once; its proxy and the servers go on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """The end of what it has written."""
        return (self.folder / "log").read_text(errors="replace")[-8000:]

    def call(self, method: str, path: str, body: Any = None) -> requests.Response:
        """What the hub's API answers to who may do everything."""
        headers = {"Authorization": f"token {self.admin_token}"}
        url = f"{self.api_url}/{path}"
        return requests.request(
            method, url, json=body, headers=headers, timeout=SECONDS
        )

    def user(self, name: str) -> dict[str, Any]:
        """What the hub knows of a user."""
        model: dict[str, Any] = self.call("GET", f"users/{name}").json()
        return model

    def login(self, name: str) -> HubUser:
        """A browser of a user who has just logged in."""
        session = requests.Session()
        session.get(f"{self.url}/hub/login", timeout=SECONDS)
        form = {
            "username": name,
            "password": PASSWORD,
            "_xsrf": _cookie(session, "_xsrf", "/hub/"),
        }
        answer = session.post(f"{self.url}/hub/login", form, timeout=SECONDS)
        assert answer.ok, answer.text
        return HubUser(hub=self, name=name, session=session)

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            # First the hub itself: the proxy writes a page of log for each question
            # that it cannot pass on.
            addresses = (self.api_url, f"{self.url}/hub/api")
            return all(requests.get(each, timeout=SECONDS).ok for each in addresses)
        except requests.ConnectionError:
            return False

    def _config(self) -> str:
        return f"""
c.JupyterHub.bind_url = {self.url!r}
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{self.hub_port}"
c.JupyterHub.db_url = "sqlite:///{self.folder / "hub.sqlite"}"
c.JupyterHub.cookie_secret_file = "{self.folder / "cookie_secret"}"
c.JupyterHub.cleanup_servers = True
c.JupyterHub.log_level = "WARN"
c.JupyterHub.redirect_to_server = False
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.DummyAuthenticator.password = {PASSWORD!r}
c.ConfigurableHTTPProxy.command = [{proxy_program()!r}]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{self.proxy_port}"
c.ConfigurableHTTPProxy.pid_file = "{self.folder / "proxy.pid"}"
c.Spawner.cmd = [{sys.executable!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
services = [{{"name": {ADMIN!r}, "api_token": {self.admin_token!r}}}]
roles = [{{"name": "of-tests", "services": [{ADMIN!r}], "scopes": [
    "admin:users", "admin:servers", "admin:groups", "tokens", "list:services",
]}}]
{self.settings}
c.JupyterHub.services = services
c.JupyterHub.load_roles = roles
"""

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JUPYTER", "AISTACK", "MLFLOW", "PYTEST"))
        }
        return {
            **kept,
            "CONFIGPROXY_AUTH_TOKEN": self.admin_token,
            "PYTHONPATH": str(ROOT),
            **self.environment,
        }


@dataclass
class HubUser:
    """A user of a hub in a browser.

    Attributes:
        hub: where they have logged in.
        name: their name there.
        session: the browser's cookies.
    """

    hub: Hub
    name: str
    session: requests.Session

    def start_server(self, options: Mapping[str, Any] | None = None) -> None:
        """Start the user's server, and open its page once."""
        path = f"users/{self.name}/server"
        answer = self.hub.call("POST", path, dict(options or {}))
        assert answer.status_code in (201, 202), answer.text
        wait_until(self.is_running, 120.0, self.hub.log)
        self.open_page()

    def is_running(self) -> bool:
        """Whether the server is there, and nothing is under way."""
        server = self.hub.user(self.name).get("servers", {}).get("", {})
        return bool(server.get("ready"))

    def open_page(self) -> None:
        """Open the server's page, which gives the browser a token of its own."""
        # Pages redirect to the hub's login, where the API would only refuse.
        answer = self.session.get(f"{self.url}/files/none", timeout=SECONDS)
        assert answer.status_code == 404, answer.text

    def stop_server(self) -> None:
        """End the server, and wait until it has ended."""
        self.hub.call("DELETE", f"users/{self.name}/server")
        wait_until(lambda: not self.has_server(), 60.0, self.hub.log)

    def has_server(self) -> bool:
        """Whether there is a server, ready or not."""
        return bool(self.hub.user(self.name).get("servers"))

    def cookie(self, name: str, path: str) -> str:
        """A cookie of the browser; empty for none."""
        return _cookie(self.session, name, path)

    @property
    def url(self) -> str:
        """Where the user's server is."""
        return f"{self.hub.url}/user/{self.name}"

    def call(
        self, method: str, path: str, body: Any = None, *, of: str = ""
    ) -> requests.Response:
        """What the user's server answers, or that of another user."""
        base = f"{self.hub.url}/user/{of or self.name}"
        xsrf = _cookie(self.session, "_xsrf", f"/user/{of or self.name}/")
        return self.session.request(
            method,
            f"{base}/{path}",
            json=body,
            headers={"X-XSRFToken": xsrf},
            timeout=SECONDS,
        )


def _cookie(session: requests.Session, name: str, path: str) -> str:
    values = [
        cookie.value
        for cookie in session.cookies
        if (cookie.name, cookie.path) == (name, path)
    ]
    return str(values[0]) if values else ""


@contextmanager
def running_hub(folder: Path, settings: str = "", **fields: Any) -> Iterator[Hub]:
    """A hub that runs, and whose servers are ended with it.

    `settings` is a part of its configuration, in which ``services`` and ``roles`` are
    lists to add to; `fields` are those of `Hub`.
    """
    hub = Hub(folder=folder, settings=settings, **fields)
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()
