"""What the panel and the status bar show."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from .labpage import LabPage

pytestmark = pytest.mark.browser


def test_empty_panel_names_devices_and_says_what_to_do_first(lab: LabPage) -> None:
    lab.open_panel()
    expect(lab.panel.locator(".jp-AIStack-device")).to_have_count(2)
    expect(lab.device(0)).to_contain_text("H100-80GB")
    expect(lab.device(0).get_by_role("img")).to_have_accessible_name("GPU 0: free")
    expect(lab.mine).to_contain_text("Open a notebook to request a slice for it.")
    expect(lab.mine.get_by_role("button", name="Request…")).to_be_disabled()
    expect(lab.panel.get_by_role("region", name="Queue")).to_contain_text(
        "No requests are waiting."
    )
    expect(lab.panel.locator("header").get_by_text("simulated")).to_be_visible()
    lab.picture("panel-empty")


@pytest.mark.parametrize("theme", ["light", "dark"], indirect=True)
def test_lease_made_in_a_cell_shows_in_panel_and_status_bar(
    lab: LabPage, theme: str
) -> None:
    lab.open_panel()
    lab.open_notebook(f"cell-{theme}.ipynb")
    expect(lab.status_item).to_have_text("no slice")
    lab.run("%gpu request 1/4")

    bar = lab.device(0).get_by_role("img")
    expect(bar).to_have_accessible_name(f"GPU 0: cell-{theme}.ipynb 1/4, 3/4 free")
    own = lab.device(0).locator(".jp-AIStack-segment.jp-mod-own")
    expect(own).to_contain_text("cell-")
    width = (
        own.bounding_box()["width"]
        / lab.device(0).locator(".jp-AIStack-bar").bounding_box()["width"]
    )
    assert width == pytest.approx(1 / 4, abs=0.03)
    expect(lab.device(1).get_by_role("img")).to_have_accessible_name("GPU 1: free")
    expect(lab.mine.locator(".jp-AIStack-size")).to_have_text("1/4")
    expect(lab.fact("Enforced by")).to_contain_text("simulated")
    expect(lab.fact("State")).to_have_text("in use")
    expect(lab.fact("Time left")).to_have_text("no end")
    expect(lab.mine.locator(".jp-AIStack-badge.jp-mod-simulated")).to_be_visible()
    expect(lab.status_item).to_contain_text("GPU 1/4")
    expect(lab.status_item).to_contain_text("20 GiB")
    expect(lab.status_item).to_contain_text("simulated")
    assert (
        lab.page.locator("body").get_attribute("data-jp-theme-light")
        == str(theme == "light").lower()
    )
    lab.picture(f"panel-lease-{theme}")
