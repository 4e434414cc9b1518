"""Units of memory: frameworks count in powers of two, bandwidths in powers of ten."""

from __future__ import annotations

from jupyter_aistack.core.model.units import GIB, MIB

GB = 10**9

__all__ = ["GB", "GIB", "MIB"]
