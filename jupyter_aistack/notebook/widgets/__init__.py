"""Live widgets for notebooks; each leaves a picture of its last state when its kernel
is gone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["ResourceMonitor", "TrainingCurve"]

_HOMES = {"ResourceMonitor": "resource_monitor", "TrainingCurve": "training_curve"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "ipywidgets"):
            raise
        raise ImportError(
            'Widgets need anywidget; run: pip install "jupyter_aistack[lab]"'
        ) from error
