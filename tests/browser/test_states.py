"""What the panel says when the server does not."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from playwright.sync_api import Error, expect

from .labpage import LabPage, Line

pytestmark = pytest.mark.browser


def test_without_a_live_connection_the_panel_polls_then_says_since_when_it_knows_nothing(
    line: Line, lab: LabPage
) -> None:
    lab.open_panel()
    lab.open_notebook("offline.ipynb")
    lab.run("%gpu request 1/4")
    release = lab.mine.get_by_role("button", name="Release")
    expect(release).to_be_enabled()

    line.cut_socket()
    badge = lab.panel.get_by_text("polling")
    expect(badge).to_be_visible()
    expect(release).to_be_enabled()
    lab.picture("state-polling")

    line.cut()
    expect(lab.panel).to_contain_text(re.compile(r"Disconnected, last seen \d+ .+ ago"))
    expect(release).to_be_disabled()
    expect(lab.status_item).to_have_text("slices: disconnected")
    lab.picture("state-disconnected")

    line.restore()
    with suppress(Error):  # the panel may recover by itself before it is told to
        lab.panel.get_by_role("button", name="Retry").click(timeout=2000)
    expect(lab.panel).not_to_contain_text("Disconnected")
    expect(badge).to_have_count(0)
    expect(release).to_be_enabled()


def test_server_that_never_answered_is_an_error_with_a_way_out(
    line: Line, unloaded: LabPage
) -> None:
    lab = unloaded
    line.cut()
    lab.load()
    lab.open_panel()
    expect(lab.panel.get_by_role("alert")).to_contain_text(
        "The devices cannot be shown"
    )
    expect(lab.panel.get_by_role("alert")).to_contain_text(
        "The Jupyter server does not answer"
    )
    retry = lab.panel.get_by_role("button", name="Retry")
    expect(retry).to_be_visible()
    lab.picture("state-error")

    line.restore()
    retry.click()
    expect(lab.panel.locator(".jp-AIStack-device")).to_have_count(2)
    expect(lab.panel.get_by_role("alert")).to_have_count(0)
