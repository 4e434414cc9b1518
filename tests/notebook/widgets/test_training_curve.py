from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.notebook.widgets.plot import curve_image, curve_svg

pytest.importorskip("anywidget")
from jupyter_aistack.notebook.widgets import TrainingCurve, training_curve


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every update of the curves, in order."""
    updates: list[Any] = []
    redraw = TrainingCurve._redraw

    def watched(self: TrainingCurve) -> None:
        redraw(self)
        updates.append(self.curves)

    monkeypatch.setattr(TrainingCurve, "_redraw", watched)
    return updates


def test_a_fast_loop_becomes_few_updates_and_the_last_point_is_shown(sent: list[Any]):
    curve = TrainingCurve(("loss",))
    for step in range(5000):
        curve.add(step, loss=step)
    curve.close()
    assert len(sent) < 50
    assert sent[-1][0]["points"][-1] == [4999.0, 4999.0]
    assert sent[-1][0]["last"] == "4999 at step 4999"


def test_a_point_that_came_too_soon_is_shown_without_another(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(training_curve, "UPDATE_SECONDS", 0.05)
    shown = threading.Event()
    curve = TrainingCurve(("loss",))
    curve.observe(
        lambda change: len(change["new"][0]["points"]) == 2 and shown.set(), "curves"
    )
    curve.add(0, loss=1.0)
    curve.add(1, loss=0.5)
    assert shown.wait(10)
    curve.close()


def test_a_long_curve_is_thinned_but_keeps_its_ends():
    curve = TrainingCurve(("loss",))
    for step in range(10_000):
        curve.add(step, loss=step)
    curve.close()
    points = curve.curves[0]["points"]
    assert len(points) <= 2 + training_curve.MAX_SHOWN
    assert (points[0], points[-1]) == ([0.0, 0.0], [9999.0, 9999.0])


def test_many_threads_may_add():
    curve = TrainingCurve(("loss",))
    threads = [
        threading.Thread(target=lambda: [curve.add(n, loss=n) for n in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    curve.close()
    assert len(curve._points["loss"]) == 2000


def test_what_is_not_finite_is_said_but_not_drawn():
    curve = TrainingCurve(("loss",))
    curve.add(0, loss=1.0)
    curve.add(1, loss=float("nan"))
    curve.close()
    assert curve.curves[0]["points"] == [[0.0, 1.0]]
    assert curve.curves[0]["last"] == "nan at step 1"


def test_metrics_that_were_not_asked_for_are_passed_over():
    curve = TrainingCurve(("loss",))
    curve.add(0, accuracy=1.0)
    curve.close()
    assert curve.summary() == "loss no points yet"


def test_without_a_step_each_curve_counts_by_itself():
    curve = TrainingCurve(("loss", "auc"))
    curve.add(None, loss=1.0)
    curve.add(None, loss=0.5, auc=0.7)
    curve.add(10, loss=0.4)
    curve.add(None, loss=0.3)
    curve.close()
    steps = {
        drawn["name"]: [point[0] for point in drawn["points"]] for drawn in curve.curves
    }
    assert steps == {"loss": [0.0, 1.0, 10.0, 11.0], "auc": [0.0]}


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("page", "least"), [("#ffffff", 4.5), ("#000000", 4.5), ("#111111", 4.0)]
)
def test_a_kept_picture_is_readable_on_light_and_dark_pages(page: str, least: float):
    (colour,) = re.findall(
        r"font-color1,(#\w{6})\)",
        curve_svg({"name": "loss", "points": [], "last": "none"}),
    )
    dark, light = sorted((luminance(colour), luminance(page)))
    assert (light + 0.05) / (dark + 0.05) >= least
    assert (
        f"color1, {colour})"
        in (
            Path(training_curve.__file__).parent / "static/training_curve.js"
        ).read_text()
    )


@pytest.mark.parametrize("metrics", [(), "loss", (1,), ("",)])
def test_metrics_must_be_names(metrics: Any):
    with pytest.raises(InvalidRequest, match="metrics: expected names"):
        TrainingCurve(metrics)


def test_the_picture_says_in_words_what_it_shows():
    svg = curve_svg(
        {"name": "<b>", "points": [[0, 1.0], [10, 0.25]], "last": "0.25 at step 10"}
    )
    assert 'aria-label="&lt;b&gt;: 0.25 at step 10"' in svg
    assert "<polyline" in svg
    assert "<b>" not in svg
    assert 'alt="&lt;b&gt;: 0.25 at step 10"' in curve_image(
        {"name": "<b>", "points": [], "last": "0.25 at step 10"}
    )


@pytest.mark.parametrize(
    "points", [[], [[0, 1.0]], [[0, 2.0], [1, 2.0]], [[0, -1.7e308], [1, 1.7e308]]]
)
def test_the_picture_of_odd_curves_has_only_finite_numbers(points: Any):
    svg = curve_svg({"name": "loss", "points": points, "last": "x"})
    assert "nan" not in svg
    assert "inf" not in svg.replace("info", "")
