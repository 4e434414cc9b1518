"""How a process learns how much of the host's memory it may suspend into."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.suspend.host_memory import (
    BYTES,
    SHARE,
    HostMemoryLimits,
    from_environment,
    to_environment,
)


@pytest.mark.parametrize("size", [None, 128 * GIB])
def test_a_process_is_told_what_its_server_is_set_to(size: int | None) -> None:
    policy = SuspendPolicy(host_share=0.35, host_bytes=size)
    told = from_environment(to_environment(policy))
    assert told == HostMemoryLimits(host_share=0.35, host_bytes=size)


@pytest.mark.parametrize(
    "environment",
    [{}, {SHARE: "most", BYTES: "128GB"}, {SHARE: "nan"}, {SHARE: "1.5", BYTES: "-1"}],
)
def test_what_cannot_be_read_leaves_the_defaults(environment: dict[str, str]) -> None:
    policy = SuspendPolicy()
    assert from_environment(environment) == HostMemoryLimits(
        host_share=policy.host_share, host_bytes=policy.host_bytes
    )
