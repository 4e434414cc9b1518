"""What a client of MPS is given: its limit, or the ceiling that a namespace holds it
under.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_aistack.providers.nvidia.mps.clients import (
    client_environment,
    client_expects,
    most_of,
)
from jupyter_aistack.providers.nvidia.mps.control import MPSLimit
from jupyter_aistack.providers.nvidia.mps.manager import MPSAssignment
from tests.fakes.ceilings import GPU, quarter

LIMIT = MPSLimit(name="l1", percent=25, mib=20 * 1024)


def held(protocol: int) -> MPSAssignment:
    return MPSAssignment(directory=Path("/p"), protocol=protocol, limit=LIMIT)


@pytest.mark.parametrize(
    ("up_to", "protocol", "percent", "mib"),
    [
        ("", 3, 25, 20 * 1024),
        ("1/2", 3, 50, 40 * 1024),
        ("1/1", 3, 100, 80 * 1024),
        # An older daemon changes nothing under a client, so it is given its limit.
        ("1/1", 2, 25, 20 * 1024),
    ],
)
def test_a_client_is_given_what_it_may_have_at_most(
    up_to: str, protocol: int, percent: int, mib: int
) -> None:
    most = most_of(quarter(1, up_to), GPU, held(protocol))
    assert (most.percent, most.mib) == (percent, mib)
    environment = client_environment(held(protocol), most)
    assert environment["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == str(percent)
    assert environment["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == f"0={mib}M"
    expects = client_expects(held(protocol), most, GPU, (9, 0))
    assert expects.memory_free == mib << 20
