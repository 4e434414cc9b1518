"""What a Jupyter server and the host's broker tell each other beside what users are
shown, on the wire.
"""

from __future__ import annotations

from jupyter_aistack.core.model.device import ProcessUse
from jupyter_aistack.core.model.kernel_report import KernelReport, Rename
from jupyter_aistack.core.wire import records as records  # leases, which breaches have
from jupyter_aistack.core.wire.formats import WIRE

from ..memory_watchdog import MemoryBreach

WIRE.record(ProcessUse, is_described=False)
WIRE.record(Rename, is_described=False)
BREACH = WIRE.record(MemoryBreach, is_described=False)
KERNEL_REPORT = WIRE.record(KernelReport, is_described=False)
