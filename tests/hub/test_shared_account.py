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

from tests.fakes.host_broker import LiveBroker
from tests.fakes.jupyterhub import Hub, HubUser
from tests.fakes.shared_hub import SharedHub, shared_hub
from tests.fakes.waiting import wait_until

from .asking import ask_for_kernel, leases, queue

SEE_OTHER = 303
FORBIDDEN = 403
NOT_FOUND = 404


@pytest.fixture(scope="module")
def shared(needs_users: None, open_folder: Path) -> Iterator[SharedHub]:
    with shared_hub(open_folder) as running:
        yield running


@pytest.fixture(scope="module")
def hub(shared: SharedHub) -> Hub:
    return shared.hub


@pytest.fixture(scope="module")
def host(shared: SharedHub) -> LiveBroker:
    return shared.host


@pytest.fixture(scope="module")
def alice(hub: Hub) -> HubUser:
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


def press(user: HubUser, action: str, **fields: Any) -> requests.Response:
    """What a form of the page brings, its hidden token included."""
    xsrf = user.cookie("_xsrf", "/services/aistack/")
    url = f"{user.hub.url}/services/aistack/{action}"
    form = {"_xsrf": xsrf, **fields}
    return user.session.post(url, form, timeout=60, allow_redirects=False)


def test_scopes_of_the_hub_make_an_admin_of_the_page(
    hub: Hub, shared: SharedHub, alice: HubUser
) -> None:
    boss = hub.login("boss")
    assert "boss: admin" in page(boss).text
    page(alice)
    token = new_token(hub)["token"]
    holder = shared.host.speaker(shared.account, token=token)
    lease = holder.request("1")
    device = lease["slices"][0]["device_id"]
    waiting = holder.ask("request", spec="1/2")["request"]["id"]

    # Nobody else has the button, and whoever makes one is refused by the broker.
    for action, fields in (
        ("drain", {"device": device, "hours": "1"}),
        ("undrain", {"device": device}),
    ):
        refused = press(alice, action, **fields)
        assert refused.status_code == FORBIDDEN
        assert 'role="alert"' in refused.text
    forged = press(boss, "release", lease_id=lease["id"], _xsrf="x")
    assert forged.status_code == FORBIDDEN
    assert holder.ask("mine")["leases"][0]["id"] == lease["id"]

    assert press(boss, "cancel", request_id=waiting).status_code == SEE_OTHER
    done = press(boss, "release", lease_id=lease["id"])
    assert done.headers["Location"] == "/services/aistack/?done=release"
    assert holder.ask("mine")["leases"] == []
    unknown = press(boss, "release", lease_id="l-none")
    assert unknown.status_code == NOT_FOUND
    assert 'role="alert"' in unknown.text

    drained = {"device": device, "hours": "2", "reason": "a fan is replaced"}
    assert press(boss, "drain", **drained).status_code == SEE_OTHER
    assert "by boss: a fan is replaced" in page(boss).text
    assert holder.ask("request", spec="1/4")["lease"] is None
    assert "hours: expected" in press(boss, "drain", device=device, hours="soon").text
    assert press(boss, "undrain", device=device).status_code == SEE_OTHER
    wait_until(lambda: holder.ask("mine")["leases"])
    holder.end()


def test_servers_of_one_account_are_different_users(hub: Hub, alice: HubUser) -> None:
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


def test_the_spawn_page_offers_what_fits_and_kernels_ask_for_it(hub: Hub) -> None:
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
    shared: SharedHub, hub: Hub, host: LiveBroker
) -> None:
    known, unknown, revoked = (new_token(hub) for _ in range(3))
    path = f"users/alice/tokens/{revoked['id']}"
    assert hub.call("DELETE", path).ok
    refused = host.speaker(shared.account, token=revoked["token"]).say("mine")["error"]
    assert "does not know the token" in refused["message"]

    alice = host.speaker(shared.account, token=known["token"])
    lease = alice.request("1/4")
    hub.kill()
    assert alice.ask("release", lease_id=lease["id"])["state"] == "ended"
    stranger = host.speaker(shared.account, token=unknown["token"])
    assert "the hub does not answer" in stranger.say("mine")["error"]["message"]
    hub.start()
    wait_until(lambda: "result" in stranger.say("mine"))


def new_token(hub: Hub) -> dict[str, str]:
    """A token of alice's, as the hub gives it out."""
    token: dict[str, str] = hub.call("POST", "users/alice/tokens", {}).json()
    return token
