"""From a cell in a real kernel, over its server's socket, to what the books say it
used.
"""

from __future__ import annotations

from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.accounting.charges import UsageRecord
from jupyter_aistack.system.users import current_user
from tests.fakes.kernel_server import IPYKERNEL, WriteKernel, active, client_of
from tests.fakes.waiting import until

BUSY = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


async def test_what_a_cell_used_is_charged_to_it(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    argv = [*IPYKERNEL, "--ext=jupyter_aistack.magics"]
    kernel_id = await kernels.start_kernel(
        kernel_name=kernelspec("one", slice="cpu:1", argv=argv)
    )
    lease = await active(broker, kernel_id)
    async with client_of(kernels.get_kernel(kernel_id)) as client:
        broker.record_usage(settle=True)
        reply = await client.execute_interactive(BUSY, timeout=30)
        number = reply["content"]["execution_count"]
        await until(
            lambda: any(span.ended_at for span in broker.ledger.cells(broker.host, 0.0))
        )
        broker.record_usage(settle=True)
        charges = broker.ledger.charges(0, 99_999, owner=kernel_id)
        cells = {
            charge.cell.partition(":")[0]: charge for charge in charges if charge.cell
        }
        assert set(cells) == {str(number)}
        paid = cells[str(number)]
        assert (paid.lease_id, paid.user, paid.kind, paid.spec) == (
            lease.id,
            current_user(),
            "cpu",
            "cpu:1",
        )
        assert 0.3 <= paid.seconds < 10.0
        assert paid.busy_seconds > 0
        assert (paid.peak_bytes or 0) > 0
        assert (paid.millijoules, paid.metered_seconds) == (0, 0.0), (
            "a CPU has no counter"
        )
        assert "process_time" not in repr(charges), "a cell's code is nobody's business"


async def test_the_end_of_a_lease_is_charged_at_once(
    kernels: Any, broker: Broker, kernelspec: WriteKernel
) -> None:
    kernel_id = await kernels.start_kernel(kernel_name=kernelspec("one", slice="cpu:1"))
    lease = await active(broker, kernel_id)
    broker.record_usage(settle=True)
    await kernels.shutdown_kernel(kernel_id, now=True)

    def charged() -> list[UsageRecord]:
        return [
            charge
            for charge in broker.ledger.charges(0, 99_999)
            if charge.lease_id == lease.id
        ]

    (charge,) = await until(charged)
    ended = broker.lease(lease.id).ended_at
    assert ended is not None
    assert 0 < charge.seconds <= ended - lease.granted_at
    await until(lambda: not broker.usage_meter.is_open)
