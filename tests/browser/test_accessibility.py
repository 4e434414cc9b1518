"""For those who do not see the page, or see it badly, or have no mouse; and for those
who read the console.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from .labpage import LabPage
from .looks import faint

pytestmark = pytest.mark.browser

CONTROLS = "button|textbox|radio|combobox|meter|img|region"


def test_every_control_has_a_name(lab: LabPage) -> None:
    busy(lab)
    assert nameless(lab.panel) == []
    assert nameless(lab.page.locator("#jp-main-statusbar .jp-AIStack-indicator")) == []
    lab.open_notebook("waiting.ipynb")
    lab.mine.get_by_role("button", name="Request…").click()
    expect(lab.dialog).to_be_visible()
    assert nameless(lab.dialog) == []
    lab.picture("accessible-dialog")


def test_tab_reaches_every_button_of_the_panel_in_order(lab: LabPage) -> None:
    busy(lab)
    buttons = lab.panel.locator("button:not(:disabled)")
    expected = [f"BUTTON {name}" for name in buttons.evaluate_all(
        "all => all.map(e => e.getAttribute('aria-label') || e.textContent.trim())"
    )]  # fmt: skip
    assert len(expected) >= 2
    lab.open_panel()
    reached = []
    for _ in expected:
        lab.page.keyboard.press("Tab")
        reached.append(lab.focused())
    assert reached == expected
    expect(lab.panel.locator("button:focus-visible")).to_have_css(
        "outline-style", "solid"
    )
    lab.picture("accessible-focus")


@pytest.mark.parametrize("theme", ["light", "dark"], indirect=True)
def test_text_stands_out_from_what_is_behind_it(lab: LabPage, theme: str) -> None:
    busy(lab)
    lab.open_notebook("waiting.ipynb")
    lab.run("%gpu request 2 --no-wait")
    expect(lab.mine).to_contain_text("waiting, number 1")
    assert faint(lab.panel) == []
    lab.show_notebook("busy.ipynb")
    expect(lab.mine.get_by_role("button", name="Release")).to_be_visible()
    lab.picture(f"accessible-{theme}")
    assert faint(lab.panel) == []


def test_whole_visit_asks_no_stranger_and_logs_no_error(lab: LabPage) -> None:
    busy(lab)
    lab.mine.get_by_role("button", name="Release").click()
    expect(lab.mine).to_contain_text("This notebook has no slice of a device.")
    lab.page.reload()
    lab.page.wait_for_function("window.jupyterapp && window.jupyterapp.started")
    lab.open_panel()
    expect(lab.panel.locator(".jp-AIStack-device")).to_have_count(2)
    lab.picture("accessible-quiet")
    assert lab.strangers == []
    assert lab.complaints == []


def busy(lab: LabPage) -> None:
    """A panel with something in every corner."""
    lab.open_panel()
    lab.open_notebook("busy.ipynb")
    lab.run("%gpu request 1/2 --for 1h")
    expect(lab.mine.get_by_role("button", name="Release")).to_be_visible()


def nameless(place: Locator) -> list[str]:
    """Controls that a screen reader could only call by their kind."""
    lines = [line.strip() for line in place.aria_snapshot().splitlines()]
    assert any(re.match(rf"- (?:{CONTROLS})\b", line) for line in lines), lines
    return [
        line for line in lines if re.match(rf"- (?:{CONTROLS})(?: \[[^]]*])*:?$", line)
    ]
