"""A server that says what the test tells it to, so that the page can be seen in any
state.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.paths import DATA

from .labpage import API, STREAM, LabPage
from .looks import faint, sticking_out

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route, WebSocketRoute

SAMPLES = DATA / "wire_samples.json"
PARTS = ("host", "leases", "queue", "usage")


class Told:
    """The line to the server, on which the test speaks instead; ask for it before
    `lab`.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sockets: list[WebSocketRoute] = []
        self.snapshot: dict[str, Any] = {}
        self.asked: list[str] = []
        page.route_web_socket(
            STREAM, lambda socket: self.sockets.append(socket)
        )  # the driver takes no built-in
        page.route(API, self._answer)

    def say(self, snapshot: dict[str, Any]) -> None:
        """Send this to the page, and answer with it from now on."""
        self.snapshot = snapshot
        for socket in self.sockets:
            socket.send(json.dumps({"type": "snapshot", **snapshot}))

    def _answer(self, route: Route) -> None:
        """What was said, by the routes of the REST interface; a verb on a lease is
        noted and changes nothing.
        """
        path = urlsplit(route.request.url).path.rpartition("/aistack/api/v1/")[2]
        if verb := re.fullmatch(r"leases/([^/]+)/(\w+)", path):
            self.asked.append(
                f"{route.request.method} {path} {route.request.post_data}"
            )
            route.fulfill(
                json=next(
                    lease for lease in self.snapshot["leases"] if lease["id"] == verb[1]
                )
            )
        elif path in PARTS and self.snapshot:
            part = self.snapshot[path]
            route.fulfill(json={path: part} if isinstance(part, list) else part)
        else:
            route.continue_()


def samples() -> dict[str, Any]:
    """What both sides are tested with, with its times moved so that it is of now."""
    text = SAMPLES.read_text()
    then = json.loads(text)["usage"]["at"]
    moved: dict[str, Any] = json.loads(
        text, parse_float=lambda number: _moved(float(number), then)
    )
    return {part: moved[part] for part in PARTS}


def _moved(number: float, then: float) -> float:
    return number + time.time() - then if number > then / 2 else number


def fits(lab: LabPage, name: str) -> None:
    """Look at the panel from top to bottom."""
    lab.picture(name)
    lab.panel.get_by_role("region", name="Reservations").scroll_into_view_if_needed()
    lab.picture(f"{name}-below")
    lab.mine.scroll_into_view_if_needed()
    assert sticking_out(lab.panel) == []
    assert faint(lab.panel) == []
