"""Experiments: what was tried, on which slice and data, how it went and what it cost."""

from __future__ import annotations

from .cost import Cost, cost, slice_hours
from .run import Run, track

__all__ = ["Cost", "Run", "cost", "slice_hours", "track"]
