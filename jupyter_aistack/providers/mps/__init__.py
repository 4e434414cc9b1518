"""NVIDIA's Multi-Process Service: one daemon for each GPU, started, watched, repaired and stopped."""

from __future__ import annotations

from .manager import Held, MPSManager

__all__ = ["Held", "MPSManager"]
