"""NVIDIA's Multi-Process Service: one daemon for each GPU, started, watched, repaired
and stopped.
"""

from __future__ import annotations

from jupyter_aistack.providers.nvidia.mps.manager import MPSAssignment, MPSManager

__all__ = ["MPSAssignment", "MPSManager"]
