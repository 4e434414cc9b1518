"""Memory limits of control groups: a small program that root runs, and how the broker
speaks to it.

``python -m jupyter_aistack.providers.nvidia.dmem`` is the program. A lease has a
control group of its own whose device memory the kernel's ``dmem`` controller limits,
through NVML (NVIDIA MPS documentation, "MPS v3 Memory Partitioning"). Setting such a
limit is root's, and so is moving a process between groups; nothing else of this package
is.
"""

from __future__ import annotations

from jupyter_aistack.providers.nvidia.dmem.client import SOCKET, DmemClient

__all__ = ["SOCKET", "DmemClient"]
