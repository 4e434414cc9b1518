"""How a host's GPUs are joined: by NVLink, and at which NUMA node they sit. What the
driver does not say is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_aistack.exceptions import ProviderError

from .nvml import NVML

P2P_NVLINK = 2
P2P_OK = 0
"""NVML's ``NVML_P2P_CAPS_INDEX_NVLINK`` and ``NVML_P2P_STATUS_OK``."""
SCOPE_NODE = 0
NODE_WORDS = 16
"""``NVML_AFFINITY_SCOPE_NODE``, and words of 64 nodes asked for; Linux knows 1,024."""


@dataclass(frozen=True, kw_only=True)
class PCILocation:
    """Where a GPU sits.

    Attributes:
        peers: ids of the GPUs it reaches by NVLink.
        domain: ``numa-0``; empty when unknown.
    """

    peers: frozenset[str] = frozenset()
    domain: str = ""


def places(nvml: NVML, indices: Mapping[str, int]) -> dict[str, PCILocation]:
    """The place of each GPU, given its index by id. Never raises: being without this is
    no problem.
    """
    handles = {
        gpu: _ask(nvml, "nvmlDeviceGetHandleByIndex", index)
        for gpu, index in indices.items()
    }
    if any(handle is None for handle in handles.values()):
        return {gpu: PCILocation() for gpu in indices}
    return {
        gpu: PCILocation(
            peers=frozenset(_peers(nvml, gpu, handles)), domain=_domain(nvml, handle)
        )
        for gpu, handle in handles.items()
    }


def _peers(nvml: NVML, gpu: str, handles: Mapping[str, Any]) -> list[str]:
    return [
        other
        for other, handle in handles.items()
        if other != gpu
        and _ask(nvml, "nvmlDeviceGetP2PStatus", handles[gpu], handle, P2P_NVLINK)
        == P2P_OK
    ]


def _domain(nvml: NVML, handle: Any) -> str:
    words = (
        _ask(nvml, "nvmlDeviceGetMemoryAffinity", handle, NODE_WORDS, SCOPE_NODE) or ()
    )
    bits = sum(int(word) << (64 * place) for place, word in enumerate(words))
    return f"numa-{(bits & -bits).bit_length() - 1}" if bits.bit_count() == 1 else ""


def _ask(nvml: NVML, function: str, *args: Any) -> Any:
    """The driver's answer; None for any failure at all, that of a GPU which has just
    been lost included.
    """
    try:
        return nvml.query(function, *args, default=None)
    except ProviderError:
        return None
