"""From a wish to a slice and back, by mouse, by keyboard, and when the wish makes no
sense.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from .labpage import LabPage
from .labserver import until

pytestmark = pytest.mark.browser


def test_request_and_release_by_mouse(lab: LabPage) -> None:
    lab.open_panel()
    lab.open_notebook("mouse.ipynb")
    lab.mine.get_by_role("button", name="Request…").click()
    lab.dialog.get_by_role("radio", name="1/2").click()
    expect(lab.dialog.get_by_role("textbox")).to_have_value("1/2")
    expect(lab.dialog).to_contain_text(
        "About 40 GiB of NVIDIA H100-80GB (simulated); free now"
    )
    lab.dialog.get_by_role("combobox", name="For").select_option("3600")
    lab.picture("dialog-light")
    lab.dialog.get_by_role("button", name="Request").click()

    expect(lab.dialog).to_have_count(0)
    expect(lab.mine.locator(".jp-AIStack-size")).to_have_text("1/2")
    expect(lab.fact("Time left")).to_contain_text("min")
    (lease,) = lab.server.leases()
    lab.attach(lease["id"])
    assert "1/2" in lab.run("%gpu")
    expect(lab.fact("State")).to_have_text("in use")
    lab.picture("request-by-mouse")

    lab.mine.get_by_role("button", name="Extend").click()
    expect(lab.fact("Time left")).to_contain_text("1 h")
    lab.mine.get_by_role("button", name="Release").click()
    expect(lab.mine).to_contain_text("This notebook has no slice of a device.")
    expect(lab.device(0).get_by_role("img")).to_have_accessible_name("GPU 0: free")
    assert lab.server.leases() == []
    assert "This kernel holds no slice" in lab.run("%gpu")


def test_request_and_release_by_keyboard_alone(lab: LabPage) -> None:
    lab.open_notebook("keyboard.ipynb")
    keyboard = lab.page.keyboard
    by_palette(lab.page, "Open AI Stack")
    expect(lab.panel).to_be_visible()
    tab_to(lab, "BUTTON Request…")
    keyboard.press("Enter")
    expect(lab.dialog.get_by_role("textbox")).to_be_focused()
    keyboard.press("ControlOrMeta+a")
    keyboard.type("1/8")
    keyboard.press("Enter")
    expect(lab.dialog).to_have_count(0)
    expect(lab.mine.locator(".jp-AIStack-size")).to_have_text("1/8")
    lab.picture("request-by-keyboard")

    by_palette(lab.page, "Release the Slice")
    expect(lab.mine).to_contain_text("This notebook has no slice of a device.")
    assert lab.server.leases() == []


def test_nonsense_is_answered_in_the_dialog_and_nothing_is_granted(
    lab: LabPage,
) -> None:
    lab.open_panel()
    lab.open_notebook("nonsense.ipynb")
    lab.mine.get_by_role("button", name="Request…").click()
    size = lab.dialog.get_by_role("textbox")
    size.fill("a lot")
    lab.dialog.get_by_role("button", name="Request").click()
    expect(lab.dialog.get_by_role("alert")).to_contain_text("spec")
    expect(lab.dialog.get_by_role("alert")).to_contain_text("a lot")
    lab.picture("dialog-refused")
    size.fill("5")
    expect(lab.dialog.get_by_role("alert")).to_have_count(0)
    lab.dialog.get_by_role("button", name="Request").click()
    expect(lab.dialog.get_by_role("alert")).not_to_be_empty()
    assert lab.server.leases() == []
    assert lab.server.queue() == []
    lab.dialog.get_by_role("button", name="Cancel").click()
    expect(lab.dialog).to_have_count(0)


def by_palette(page: Page, label: str) -> None:
    """Run a command as the keyboard does: open the palette, type its label, press
    Enter.
    """
    until(lambda: _is_found(page, label), 60, f"the palette does not offer {label!r}")
    page.keyboard.press("Enter")


def _is_found(page: Page, label: str) -> bool:
    """Open the palette and type; a notebook that is just getting ready takes the
    keyboard back, and so closes it.
    """
    if not page.evaluate(IN_PALETTE):
        page.keyboard.press("ControlOrMeta+Shift+c")
    page.wait_for_timeout(500)
    if not page.evaluate(IN_PALETTE):
        return False
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type(label)
    page.wait_for_timeout(500)
    active = page.locator(
        "#modal-command-palette .lm-mod-active .lm-CommandPalette-itemLabel"
    )
    return (
        active.count() == 1
        and label in active.inner_text()
        and bool(page.evaluate(IN_PALETTE))
    )


IN_PALETTE = "document.activeElement?.closest('#modal-command-palette') !== null"


def tab_to(lab: LabPage, name: str) -> None:
    """Press Tab until the keyboard is where it should be."""
    seen: list[str] = []
    while lab.focused() != name:
        seen.append(lab.focused())
        assert len(seen) < 25, f"Tab does not reach {name}: {seen}"
        lab.page.keyboard.press("Tab")
