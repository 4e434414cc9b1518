"""One tick asks the driver once, however many read what it said."""

from __future__ import annotations

from typing import Any

from jupyter_aistack.core.model.units import GIB

SETUP = """
import ctypes, os
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from jupyter_aistack.testing import ManualClock, holder
fake = ctypes.CDLL("libnvidia-ml.so.1")
clock = ManualClock()
provider = GPUProvider(clock=clock)
broker = Broker(MemoryLedger(), [provider], host="box", clock=clock, ttl_seconds=3600.0)
for number in range(2):
    broker.submit("1/4", holder(f"kernel-{number}", host="box", pid=os.getpid()))
def tick():
    # A server's turn of two seconds, with a panel open that is drawn each second.
    before = fake.fakeCalls()
    clock.advance(1.0)
    broker.usage()
    clock.advance(1.0)
    broker.maintain()
    broker.usage()
    return fake.fakeCalls() - before
"""
FRESH = """
def fresh():
    (lease, _) = broker.leases()
    broker.inventory()
    before = fake.fakeCalls()
    broker.devices.fresh([lease], {lease.id: frozenset({os.getpid()})})
    return fake.fakeCalls() - before
"""
CALLS_PER_TICK = 36
"""With two GPUs, one of them leased to two kernels. 17 find out what there is; the sample
takes 7 of each (handle, GPM, work by process, memory, utilisation, power, energy
counter) and three lists of processes of the leased one. A list that is not empty takes
two: its length, then the list. Whether they are well a thread waits to be told.
"""
CALLS_OF_STATE = 6
"""Every ten seconds, of each GPU: recovery, clocks and temperature."""
CALLS_OF_A_MINUTE = 31
"""Every minute, 12 for counters of health (of each GPU: remapped rows, retired pages, two
kinds of memory errors, two power limits) and 19 for what joins the GPUs and how shares
of them can be held.
"""


def state() -> str:
    gpus = "".join(
        f"gpu uuid=GPU-{i} name=NVIDIA_H200 memory={140 * GIB} cores=16896 energy_mj=9\n"
        for i in range(2)
    )
    return gpus + f"process gpu=0 pid=11 memory={GIB} sm=20\n"


def test_a_tick_with_a_panel_open_asks_the_driver_so_often(fake_nvml: Any) -> None:
    child = fake_nvml.python(state(), SETUP)
    child("[tick() for _ in range(3)]")
    others = [CALLS_PER_TICK] * 3
    looked_at = CALLS_PER_TICK + CALLS_OF_STATE
    assert child("[tick() for _ in range(5)]") == [CALLS_PER_TICK, looked_at, *others]


def test_the_counters_of_health_are_asked_for_once_a_minute(fake_nvml: Any) -> None:
    child = fake_nvml.python(state(), SETUP)
    calls = child("[tick() for _ in range(62)]")
    minute = [CALLS_PER_TICK] * 30
    for tick in range(2, 30, 5):
        minute[tick] += CALLS_OF_STATE
    minute[27] += CALLS_OF_A_MINUTE
    assert calls[2:] == minute * 2


CALLS_OF_A_FRESH_SAMPLE = 11
"""Of the leased GPU alone: who asks for figures of now has no other device asked."""


def test_a_fresh_sample_asks_the_leased_gpu_alone(fake_nvml: Any) -> None:
    child = fake_nvml.python(state(), SETUP)
    child.run(FRESH)
    child("[tick() for _ in range(3)]")
    assert child("[fresh() for _ in range(3)]") == [CALLS_OF_A_FRESH_SAMPLE] * 3
    looked_at = CALLS_PER_TICK + CALLS_OF_STATE
    expected = [CALLS_PER_TICK, looked_at, CALLS_PER_TICK]
    assert child("[tick() for _ in range(3)]") == expected, (
        "it cuts no tick's time short, and makes none of them ask again"
    )
