"""GPU slices for Jupyter: lease, compute, train, track.

Importing this package only binds names; what they need is opened at first use.
"""

from __future__ import annotations

from typing import Any

from ._version import __version__ as __version__

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
    "Cluster": "compute.clusters.cluster",
    "ResourceMonitor": "notebook.widgets",
    "TrainingCurve": "notebook.widgets",
    "connect": "client.client",
    "offloadable": "client.offload.offload",
    "on_notice": "client.notices",
    "request": "client.client",
    "track": "tracking.track",
    "train": "compute.training.train",
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
