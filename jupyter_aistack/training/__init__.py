"""Training on leased slices: one torch rank per Dask worker, each in a process of its own."""

from __future__ import annotations

from typing import Any

_HOMES = {"Context": "loop", "Result": "launch", "choose_backend": "backend", "train": "launch"}

__all__ = ["Context", "Result", "choose_backend", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
