"""What is wrong with the looks of a part of the page, as far as a machine can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator

ENOUGH_CONTRAST = 4.5
# Ratio of text to what is behind it, by the formula of WCAG 2, for each element with
# text of its own.
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
  const isDrawn = e => rgba(getComputedStyle(e).color)[3] > 0;
  const isShown = e => e.offsetWidth > 1 && !e.closest('[aria-hidden=true], :disabled, .jp-AIStack-announcer');
  return [...root.querySelectorAll('*')].filter(e => hasText(e) && isDrawn(e) && isShown(e)).map(e => {
    const back = behind(e);
    const [low, high] = [light(over(rgba(getComputedStyle(e).color), back)), light(back)].sort((a, b) => a - b);
    return [`${e.className || e.tagName}: ${e.textContent}`, (high + 0.05) / (low + 0.05)];
  });
}"""
# Texts that stick out of the panel, or are cut off without an ellipsis to say so.
STICKING_OUT = """root => {
  const edge = root.getBoundingClientRect().right;
  const isCut = e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).textOverflow !== 'ellipsis';
  const isShown = e => e.clientWidth > 1 && !e.closest('.jp-AIStack-announcer');
  return [root, ...root.querySelectorAll('*')].filter(e => isShown(e) && e.textContent.trim())
    .filter(e => e.getBoundingClientRect().right > edge + 1 || isCut(e))
    .map(e => `${e.className || e.tagName}: ${e.textContent}`);
}"""


def faint(place: Locator) -> list[str]:
    """Texts with too little contrast, and how little."""
    ratios: list[tuple[str, float]] = [
        (text, ratio) for text, ratio in place.evaluate(CONTRASTS)
    ]
    assert ratios
    return [f"{text}: {ratio:.1f}" for text, ratio in ratios if ratio < ENOUGH_CONTRAST]


def sticking_out(place: Locator) -> list[str]:
    """Texts that do not fit."""
    texts: list[str] = place.evaluate(STICKING_OUT)
    return texts
