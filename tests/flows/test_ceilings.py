"""A lease with a ceiling through a real server, on the cores of this host: the kernel has
what nobody else has leased, and gives it up at once to those who come.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.condition import conditions_text
from tests.fakes.kernel_server import (
    WITH_MAGICS,
    WriteKernel,
    active,
    client_of,
    evaluate,
)

CORES = len(os.sched_getaffinity(0))
pytestmark = pytest.mark.skipif(CORES < 2, reason="needs two cores")
BOUND = "sorted(map(len, {tuple(os.sched_getaffinity(int(t))) for t in os.listdir('/proc/self/task')}))"
THREADS = "os.environ['OMP_NUM_THREADS']"


async def test_a_kernel_has_the_cores_that_nobody_else_has_leased(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    elastic = kernelspec("elastic", slice="cpu:1", up_to="1/1", argv=WITH_MAGICS)
    kernel_id = await kernels.start_kernel(kernel_name=elastic)
    lease = await active(broker, kernel_id)
    assert (lease.verified, conditions_text(lease.conditions)) == (True, "")
    assert len(lease.slices[0].cores) == 1
    assert len(lease.effective_slices[0].cores) == CORES

    async with client_of(kernels.get_kernel(kernel_id)) as client:
        assert await evaluate(client, BOUND) == [CORES]
        assert await evaluate(client, THREADS) == str(CORES)

        rest = kernelspec("rest", slice=f"cpu:{CORES - 1}")
        other_id = await kernels.start_kernel(kernel_name=rest)
        other = await active(broker, other_id)
        lease = broker.lease(lease.id)
        (guaranteed,) = lease.slices[0].cores
        assert lease.effective_slices[0].cores == (guaranteed,)
        assert guaranteed not in other.slices[0].cores
        # Bound from outside while it runs; its frameworks follow before the cell.
        assert await evaluate(client, BOUND) == [1]
        assert await evaluate(client, THREADS) == "1"

        await kernels.shutdown_kernel(other_id, now=True)
        broker.cycle()
        assert len(broker.lease(lease.id).effective_slices[0].cores) == CORES
        assert await evaluate(client, BOUND) == [CORES]
        assert await evaluate(client, THREADS) == str(CORES)
    assert conditions_text(broker.lease(lease.id).conditions) == ""
