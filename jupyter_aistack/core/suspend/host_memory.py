"""How much of the host's memory a process may move device state into: what its server
is set to, handed over in the process's environment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jupyter_aistack.core.model.policy import SuspendPolicy

SHARE = "AISTACK_SUSPEND_HOST_SHARE"
"""`SuspendPolicy.host_share`."""
BYTES = "AISTACK_SUSPEND_HOST_MEMORY"
"""`SuspendPolicy.host_bytes`."""


@dataclass(frozen=True, kw_only=True)
class HostMemoryLimits:
    """What suspended state may take of the host; the fields are `SuspendPolicy`'s."""

    host_share: float = SuspendPolicy.host_share
    host_bytes: int | None = None


def to_environment(policy: SuspendPolicy) -> dict[str, str]:
    """The variables that tell a process of a policy."""
    variables = {SHARE: str(policy.host_share)}
    if policy.host_bytes is not None:
        variables[BYTES] = str(policy.host_bytes)
    return variables


def from_environment(environment: Mapping[str, str]) -> HostMemoryLimits:
    """What a process was told; the defaults where it was told nothing that can be
    read.
    """
    share = _share(environment.get(SHARE, ""))
    size = environment.get(BYTES, "")
    return HostMemoryLimits(
        host_share=HostMemoryLimits.host_share if share is None else share,
        host_bytes=int(size) if size.isdecimal() else None,
    )


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if math.isfinite(share) and 0 <= share <= 1 else None
