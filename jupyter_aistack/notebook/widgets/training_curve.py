"""``TrainingCurve``: how a training goes, drawn while it goes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import traitlets

from jupyter_aistack.exceptions import InvalidRequest

from .base import LiveWidget, module
from .plot import curve_image

UPDATE_SECONDS = 0.2
MAX_SHOWN = 300
"""Points drawn of each curve; a longer curve is thinned out evenly."""

Points = list[tuple[float, float]]


class TrainingCurve(LiveWidget):
    """Curves of metrics, live while a training runs.

    Args:
        metrics: which to show, each in a frame of its own.
    """

    _esm = module("training_curve.js")
    curves: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(self, metrics: Sequence[str] = ("loss", "auc")) -> None:
        self._timer: threading.Timer | None = (
            None  # close() runs after a failed start too
        )
        self._points: dict[str, Points] = {}
        self._guard = threading.Lock()
        if not _are_names(metrics):
            raise InvalidRequest(
                f'metrics: expected names such as ("loss", "auc"), got {metrics!r}',
                field="metrics",
            )
        self._points.update((name, []) for name in metrics)
        self._sent_at = 0.0
        super().__init__(
            curves=[{"name": name, "points": [], "last": None} for name in metrics]
        )

    def add(self, step: float | None, **metrics: Any) -> None:
        """Add a point to each curve named; others are passed over. Call it from any
        thread, as often as you like.

        Args:
            step: place on the curves; None goes one step on, on each curve by itself.
            metrics: the values.
        """
        with self._guard:
            for name, value in metrics.items():
                if name in self._points:
                    points = self._points[name]
                    at = _next_step(points) if step is None else float(step)
                    points.append((at, float(value)))
            wait = self._sent_at + UPDATE_SECONDS - time.monotonic()
            if wait > 0:
                self._redraw_later(wait)
                return
        self._redraw()

    def _redraw_later(self, wait: float) -> None:
        """What comes too soon after the last update is sent with the next."""
        if self._timer is None:
            self._timer = threading.Timer(wait, self._redraw)
            self._timer.daemon = True
            self._timer.start()

    def _redraw(self) -> None:
        with self._guard:
            self._timer = None
            self._sent_at = time.monotonic()
            curves = [_curve(name, points) for name, points in self._points.items()]
        self.curves = curves
        self._follow()

    def picture(self) -> str:
        """The curves as images."""
        with self._guard:
            return "".join(
                curve_image(_curve(name, points))
                for name, points in self._points.items()
            )

    def summary(self) -> str:
        """The last values."""
        with self._guard:
            return ", ".join(
                f"{name} {_last_text(points)}" for name, points in self._points.items()
            )

    def close(self) -> None:
        """Draw the last points and end the live view; a picture stays."""
        if self._timer is not None:
            self._timer.cancel()
        if self._points:
            self._redraw()
        super().close()


def _are_names(metrics: Sequence[str]) -> bool:
    if isinstance(metrics, str) or not metrics:
        return False
    return all(isinstance(name, str) and name for name in metrics)


def _curve(name: str, points: Points) -> dict[str, Any]:
    finite = [point for point in points if math.isfinite(point[1])]
    stride = max(1, math.ceil(len(finite) / MAX_SHOWN))
    shown = finite[::stride]
    if finite and shown[-1] != finite[-1]:
        shown.append(finite[-1])
    return {
        "name": name,
        "points": [list(point) for point in shown],
        "last": _last_text(points),
    }


def _next_step(points: Points) -> float:
    return points[-1][0] + 1 if points else 0.0


def _last_text(points: Points) -> str:
    if not points:
        return "no points yet"
    step, value = points[-1]
    return f"{value:.4g} at step {step:g}"
