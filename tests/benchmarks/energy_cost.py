"""What keeping the books costs: eight GPUs looked at once a second, a bill every ten
seconds, as a share of a core.

    python -m tests.benchmarks.energy_cost

The driver is the fake one, so what is measured is ours alone: reading through
nvidia-ml-py, dividing, writing to SQLite. A real driver adds what its calls take;
ml-energy/zeus measured less than 10 ms for a read of the counter.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.fakes.nvml.plugin import FakeNVML

from .harness import Report, main

GPUS, LEASES_EACH, SECONDS = 8, 4, 120

SETUP = """
import os, time
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.accounting.charges import CellInterval
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.providers.nvidia.provider import GPUProvider
from jupyter_aistack.testing import ManualClock, holder

clock = ManualClock()
ledger = SQLLedger(f"sqlite:///{folder}/ledger.sqlite")
broker = Broker(ledger, [GPUProvider()], host="box", clock=clock, ttl_seconds=1e6)
for number in range(count):
    broker.submit("1/4", holder(f"kernel-{number}", host="box", pid=os.getpid()))
broker.record_usage()

def look():
    clock.advance(1.0)
    broker.record_usage()

def run(seconds):
    began, cpu = time.perf_counter(), time.process_time()
    for second in range(seconds):
        owner = f"kernel-{second % count}"
        cell = CellInterval(host="box", user="ann", owner=owner, cell=f"{second}:ab", began_at=clock.now)
        ledger.record_cells([cell])
        look()
    return time.process_time() - cpu, time.perf_counter() - began
"""


def state() -> str:
    lines = []
    for gpu in range(GPUS):
        lines.append(
            f"gpu uuid=GPU-{gpu} name=NVIDIA_H200 memory={140 << 30} cores=16896 energy_mj=1000 gpm_ms=0"
        )
        lines += [
            f"process gpu={gpu} pid={1000 + gpu * 10 + n} memory={1 << 30} sm=20"
            for n in range(LEASES_EACH)
        ]
    return "\n".join(lines) + "\n"


def measure(rounds: int) -> Report:
    """CPU seconds for each second of host time, with all that a look and a bill do;
    median of the rounds.
    """
    shares, walls = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            driver = FakeNVML(Path(folder))
            child = driver.python(state())
            child.run(SETUP, folder=folder, count=GPUS * LEASES_EACH)
            cpu, wall = child("run(seconds)", seconds=SECONDS)
            driver.close()
        shares.append(cpu / SECONDS)
        walls.append(wall / SECONDS * 1000)
    figures = {
        "share_of_a_core": statistics.median(shares),
        "ms_look": statistics.median(walls),
    }
    return Report(figures=figures, goals={"share_of_a_core": 0.01})


if __name__ == "__main__":
    main("energy_cost", measure, rounds=3)
