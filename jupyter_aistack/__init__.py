"""GPU slices for Jupyter: lease, compute, train, track.

Importing this package only binds names; what they need is opened at first use.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

__all__ = [
    "AIStackError",
    "Cluster",
    "ResourceMonitor",
    "TrainingCurve",
    "connect",
    "offloadable",
    "on_notice",
    "request",
    "track",
    "train",
]

_HOMES = {
    "AIStackError": "exceptions",
    "Cluster": "clusters",
    "ResourceMonitor": "widgets",
    "TrainingCurve": "widgets",
    "connect": "client",
    "offloadable": "offload",
    "on_notice": "notices",
    "request": "client",
    "track": "tracking",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension_static", "dest": "jupyter-aistack"}]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from .server.app import AIStackExtension

    return [{"module": "jupyter_aistack.server.app", "app": AIStackExtension}]
