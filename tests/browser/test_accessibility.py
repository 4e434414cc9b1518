"""For those who do not see the page, or see it badly, or have no mouse; and for those who read the console."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from .labpage import LabPage

pytestmark = pytest.mark.browser

CONTROLS = "button|textbox|radio|combobox|meter|img|region"
ENOUGH_CONTRAST = 4.5
# Ratio of text to what is behind it, by the formula of WCAG 2, for each element with text of its own.
CONTRASTS = """root => {
  const rgba = text => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const behind = e => {
    if (!e) return [255, 255, 255, 1];
    const own = rgba(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own : over(own, behind(e.parentElement));
  };
  const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const v = c[i] / 255;
    return sum + w * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const hasText = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const isShown = e => e.offsetWidth > 1 && !e.closest('[aria-hidden=true], :disabled, .jp-AIStack-announcer');
  return [...root.querySelectorAll('*')].filter(e => hasText(e) && isShown(e)).map(e => {
    const back = behind(e);
    const [low, high] = [light(over(rgba(getComputedStyle(e).color), back)), light(back)].sort((a, b) => a - b);
    return [`${e.className || e.tagName}: ${e.textContent}`, (high + 0.05) / (low + 0.05)];
  });
}"""


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
    expect(lab.panel.locator("button:focus-visible")).to_have_css("outline-style", "solid")
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
    return [line for line in lines if re.match(rf"- (?:{CONTROLS})(?: \[[^]]*])*:?$", line)]


def faint(place: Locator) -> list[str]:
    """Texts with too little contrast, and how little."""
    ratios: list[tuple[str, float]] = [(text, ratio) for text, ratio in place.evaluate(CONTRASTS)]
    assert ratios
    return [f"{text}: {ratio:.1f}" for text, ratio in ratios if ratio < ENOUGH_CONTRAST]
