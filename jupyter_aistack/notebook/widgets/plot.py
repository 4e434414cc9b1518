"""Pictures without a browser: a curve as SVG, and as an image that pages which strip
SVG still show.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH = 420
HEIGHT = 160
LEFT = 56
RIGHT = 12
TOP = 24
BOTTOM = 22
INK = "#767676"
"""Where no theme colours a picture, its page may be white or dark. This is the lightest
gray with WCAG's contrast of 4.5 on white; it has 4.6 on black and 4.2 on JupyterLab's
#111."""


def curve_svg(curve: Mapping[str, Any]) -> str:
    """One curve, with its extremes and its last value in words.

    Args:
        curve: ``name``, ``points`` as [step, value] pairs of finite numbers, and
            ``last``, the last value in words.
    """
    label = escape(f"{curve['name']}: {curve['last']}")
    inner = _plot(curve["points"]) if curve["points"] else ""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="{label}" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="11" fill="currentColor" '
        f'style="color:var(--jp-content-font-color1,{INK})">'
        f'<text x="{LEFT}" y="14" font-weight="bold">{label}</text>'
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="currentColor" opacity=".4"/>'
        f"{inner}</svg>"
    )


def curve_image(curve: Mapping[str, Any]) -> str:
    """The same as an HTML image that carries its own data."""
    data = b64encode(curve_svg(curve).encode()).decode()
    label = escape(f"{curve['name']}: {curve['last']}")
    return f'<img alt="{label}" src="data:image/svg+xml;base64,{data}" width="{WIDTH}" height="{HEIGHT}">'


def _plot(points: Sequence[Sequence[float]]) -> str:
    steps = [step for step, _ in points]
    values = [value for _, value in points]
    xs = _scaled(steps, LEFT, WIDTH - RIGHT)
    ys = _scaled(values, HEIGHT - BOTTOM, TOP + 4)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    brand = "var(--jp-brand-color1,#1976d2)"
    return (
        f'<polyline points="{line}" fill="none" stroke="{brand}" stroke-width="1.5"/>'
        f'<circle cx="{xs[-1]:.1f}" cy="{ys[-1]:.1f}" r="3" fill="{brand}"/>'
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{max(values):.3g}</text>'
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end">{min(values):.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{min(steps):g}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{max(steps):g}</text>'
    )


def _scaled(numbers: Sequence[float], low: float, high: float) -> list[float]:
    """`numbers` laid between `low` and `high`; in the middle when they are all the
    same.
    """
    least = min(numbers)
    most = max(numbers)
    # Halves, so that the span of the largest floats is still a float.
    half_span = most / 2 - least / 2
    if not half_span:
        return [(low + high) / 2] * len(numbers)
    shares = [(number / 2 - least / 2) / half_span for number in numbers]
    return [low + (high - low) * share for share in shares]
