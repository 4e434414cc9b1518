"""One JupyterLab and one Chromium for all browser tests; a page, and no kernel left
over, for each of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect, sync_playwright

from .labpage import LabPage, Line
from .labserver import LabServer, lab_server
from .told import Told

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
SIZE = {"width": 1280, "height": 800}
# Where ten others want the cores, JupyterLab takes a minute to be there.
PATIENCE_MS = 120_000


@pytest.fixture
def jp_asyncio_loop() -> None:
    """Playwright runs a loop of its own in this thread, which pytest-jupyter's fixture
    of this name would close.
    """


@pytest.fixture
def jp_server_cleanup() -> None:
    """As above: there is no server in this process to clean up after."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """The JupyterLab that all browser tests share."""
    with lab_server(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's Chromium."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def theme(request: pytest.FixtureRequest) -> str:
    """The colour scheme of the browser, which JupyterLab follows: ``light``, unless
    parametrized indirectly.
    """
    return str(getattr(request, "param", "light"))


@pytest.fixture
def page(browser: Browser, theme: str) -> Iterator[Page]:
    """An empty page with nothing remembered."""
    scheme: Any = theme
    context = browser.new_context(viewport=SIZE, color_scheme=scheme)
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def unloaded(page: Page, server: LabServer) -> Iterator[LabPage]:
    """JupyterLab before the page is there; whatever holds a slice afterwards is
    ended.
    """
    yield LabPage(page, server)
    server.clean()


@pytest.fixture
def lab(unloaded: LabPage) -> LabPage:
    """JupyterLab with its launcher."""
    return unloaded.load()


@pytest.fixture
def line(page: Page) -> Line:
    """The line to the server, to be cut; ask for it before `lab`."""
    return Line(page)


@pytest.fixture
def told(page: Page) -> Told:
    """The line to the server, taken over; ask for it before `lab`."""
    return Told(page)
