"""Dask clusters on leased slices: one lease per worker, released with it."""

from __future__ import annotations

from typing import Any

__all__ = ["Cluster"]


def __getattr__(name: str) -> Any:
    if name != "Cluster":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .cluster import Cluster

    return Cluster
