"""Two users of a hub in two browsers, and an admin on the page of the hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from playwright.sync_api import expect

from tests.fakes import other_users
from tests.fakes.jupyterhub import PASSWORD, Hub, proxy_program
from tests.fakes.shared_hub import SharedHub, shared_hub

from .conftest import PATIENCE_MS, SIZE
from .labpage import PICTURES, LabPage
from .labserver import SETTINGS, LabServer
from .looks import faint

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

LAB = """
c.Spawner.args = [
    "--LabApp.user_settings_dir={folder}",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",
]
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedHub]:
    """The hub, whose servers are JupyterLabs."""
    why_not = other_users.why_not() or ("" if proxy_program() else "no hub proxy")
    if why_not:
        pytest.skip(why_not)
    with (
        other_users.open_folder() as folder,
        shared_hub(folder, LAB.format(folder=lab_settings(folder))) as running,
    ):
        yield running


def lab_settings(folder: Path) -> Path:
    """Settings of JupyterLab by which nobody is asked about news."""
    settings = folder / "settings"
    for name, values in SETTINGS.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    return settings


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Makes pages of browsers that share nothing."""
    with ExitStack() as contexts:

        def make(*, java_script: bool = True) -> Page:
            context = browser.new_context(
                viewport=SIZE, java_script_enabled=java_script
            )
            contexts.callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            return context.new_page()

        yield make


@dataclass(frozen=True, kw_only=True)
class HubLabServer(LabServer):
    """The server of a user of a hub."""

    home: Path

    @property
    def root(self) -> Path:
        return self.home


def log_in(page: Page, hub: Hub, user: str) -> None:
    """As people do."""
    page.goto(f"{hub.url}/hub/login")
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/hub/home")


def lab_of(shared: SharedHub, page: Page, user: str) -> LabPage:
    """A user's JupyterLab with a notebook of their name, and our panel beside it."""
    log_in(page, shared.hub, user)
    shared.hub.login(user).start_server()
    home = shared.home(user)
    assert shared.hub.process is not None
    server = HubLabServer(
        url=f"{shared.hub.url}/user/{user}",
        token="",
        process=shared.hub.process,
        folder=home,
        home=home,
    )
    write_notebook(home / f"{user}.ipynb", shared.account)
    lab = LabPage(page, server).load()
    lab.open_panel()
    lab.open_notebook(f"{user}.ipynb")
    return lab


def write_notebook(path: Path, owner: int) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell()])
    notebook.metadata["kernelspec"] = {
        "name": "aistack",
        "display_name": "aistack",
        "language": "python",
    }
    nbformat.write(notebook, path)
    os.chown(path, owner, owner)


def keep_picture(page: Page, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


def test_two_users_share_a_gpu_and_an_admin_keeps_it_in_order(
    shared: SharedHub, new_page: Callable[..., Page]
) -> None:
    alice = lab_of(shared, new_page(), "alice")
    bob = lab_of(shared, new_page(), "bob")

    alice.run("%gpu request 1")
    bob.run("%gpu request 1/2 --no-wait")
    expect(bob.mine).to_contain_text("waiting, number 1")
    expect(bob.device(0).get_by_role("img")).to_have_accessible_name(
        re.compile(r"^GPU 0: kernel:\w+ 1$")
    )
    expect(bob.panel).not_to_contain_text("alice")
    bob.picture("hub-bob-waits")

    # The admin's browser runs no scripts at all.
    boss = new_page(java_script=False)
    log_in(boss, shared.hub, "boss")
    boss.goto(f"{shared.hub.url}/services/aistack/")
    held = boss.get_by_role("region", name="Held now").get_by_role("row")
    waiting = boss.get_by_role("region", name="Waiting").get_by_role("row")
    expect(held.nth(1)).to_contain_text("alice.ipynb")
    expect(waiting.nth(1)).to_contain_text("bob.ipynb")
    keep_picture(boss, "hub-page")

    alice.run("%gpu release")
    expect(bob.mine.locator(".jp-AIStack-size")).to_have_text("1/2")
    bob.picture("hub-bob-holds")

    devices = boss.get_by_role("region", name="Devices")
    devices.get_by_text("Drain…").click()
    devices.get_by_label("For").select_option("4 h")
    devices.get_by_label("Reason").fill("a fan is replaced")
    devices.get_by_role("button", name="Drain").click()
    expect(boss.get_by_role("status")).to_contain_text("nothing new is granted")
    expect(devices).to_contain_text("drained until")
    expect(devices).to_contain_text("by boss: a fan is replaced")
    keep_picture(boss, "hub-page-drained")
    alice.run("%gpu request 1/4 --no-wait")
    expect(alice.mine).to_contain_text("waiting, number 1")
    expect(alice.mine).to_contain_text("a fan is replaced")
    alice.picture("hub-alice-drained")

    devices.get_by_role("button", name="Undrain").click()
    expect(alice.mine.locator(".jp-AIStack-size")).to_have_text("1/4")

    bobs = held.filter(has_text="bob.ipynb")
    expect(bobs).to_have_count(1)
    bobs.get_by_text("Release…").click()
    bobs.get_by_role("button", name="Release now").click()
    expect(boss.get_by_role("status")).to_contain_text("has been released")
    expect(bobs).to_have_count(0)
    expect(bob.mine).not_to_contain_text("1/2")
    strangers = [*alice.strangers, *bob.strangers]
    assert all(url.startswith(shared.hub.url) for url in strangers)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read_by_everybody(
    shared: SharedHub, new_page: Callable[..., Page], scheme: str
) -> None:
    page = new_page()
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    log_in(page, shared.hub, "boss")
    page.goto(f"{shared.hub.url}/services/aistack/")
    page.get_by_text("Drain…").click()
    assert faint(page.locator("body")) == []
    # Everything that can be operated is reached by the Tab key, and has a name.
    controls = page.locator("a, summary, button:visible, select:visible, input:visible")
    page.keyboard.press("Tab")
    assert controls.count() >= 5
    keep_picture(page, f"hub-page-{scheme}")
    page.set_viewport_size({"width": 400, "height": 800})
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 400, "a narrow page scrolls its tables, and not itself"
    keep_picture(page, f"hub-page-narrow-{scheme}")
