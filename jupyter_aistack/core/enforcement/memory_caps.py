"""Memory caps for frameworks as environment variables, beside those a user has set: the
lower of the two wins.

A user's own setting may be smaller than the slice, and then it stands; it can never
make the slice wider.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

SHARE = "AISTACK_MEMORY_FRACTION"
"""Share of each visible device's memory, for torch and vLLM, which
`jupyter_aistack.client.runtime.memory_caps` holds to it.
"""
RMM_BYTES = "AISTACK_RMM_MAXIMUM_POOL_SIZE"
TENSORFLOW_MIB = "AISTACK_TENSORFLOW_MEMORY_LIMIT"
CUPY = "CUPY_GPU_MEMORY_LIMIT"
JAX = "XLA_PYTHON_CLIENT_MEM_FRACTION"
JAX_NEW = "XLA_CLIENT_MEM_FRACTION"
"""Two names of one setting. jaxlib refuses to start when both are set
(``generate_pjrt_gpu_plugin_options``), and its releases so far read the older, so that
is the name we set."""

CAPS = (SHARE, RMM_BYTES, TENSORFLOW_MIB, CUPY, JAX, JAX_NEW)
TORCH_KEY = "per_process_memory_fraction"
_TORCH_SHARE = re.compile(rf"(?:^|,)\s*{TORCH_KEY}\s*:\s*([^,]*)")


def merge_caps(
    own: Mapping[str, str], granted: Mapping[str, str], *, forced: Sequence[str]
) -> dict[str, str]:
    """The variables to set for a slice in a process that has `own`.

    Args:
        own: what is set already.
        granted: what the slice comes with.
        forced: beginnings of names that are set whatever was there; of others the
            user's own stands, or the lower cap.
    """
    wanted: dict[str, str] = {}
    for name, value in granted.items():
        target = name
        if name == JAX and JAX_NEW in own:
            target = JAX_NEW
        is_forced = target.startswith(tuple(forced))
        if target not in own or is_forced:
            wanted[target] = value
        elif target in CAPS:
            wanted[target] = _lower(target, own[target], value, granted)
    return wanted


def combine_caps(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """The caps of a process with two slices: frameworks take one figure for all
    devices, so the tighter of each.
    """
    both = {
        name: value
        for part in (first, second)
        for name, value in part.items()
        if name in CAPS
    }
    for name in both:
        if name in first and name in second:
            both[name] = min(first[name], second[name], key=float)
    return both


def with_torch_share(conf: str, share: str) -> str:
    """An allocator configuration of torch with a share of the memory in it; a lower
    share that is there already stands.
    """
    match = _TORCH_SHARE.search(conf)
    if match is None:
        if conf.strip():
            return f"{conf},{TORCH_KEY}:{share}"
        return f"{TORCH_KEY}:{share}"
    start, end = match.span(1)
    lower = _lower_number(match[1], share)
    return conf[:start] + lower + conf[end:]


def _lower(name: str, own: str, granted: str, beside: Mapping[str, str]) -> str:
    if name == CUPY and own.strip().endswith("%"):
        percent = _number(own.strip()[:-1])
        own_share = None if percent is None else percent / 100
        granted_share = _number(beside.get(SHARE, ""))
        if _is_within(own_share, granted_share):
            return own
        return granted
    return _lower_number(own, granted)


def _lower_number(own: str, granted: str) -> str:
    if _is_within(_number(own), _number(granted)):
        return own
    return granted


def _is_within(number: float | None, most: float | None) -> bool:
    if number is None or most is None:
        return False
    return 0 < number <= most


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
