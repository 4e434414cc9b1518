"""A process and those below it, as the devices of its leases see them: what is to be
known before it is ended.
"""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_aistack.core.accounting.measurement import is_working, memory_by_unit
from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import HostSample
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.system.processes import tree

from .broker import Broker


class DeviceProcesses:
    """A process and those below it, as the devices of some leases see them.
    Synchronous: call it in a thread.

    Args:
        broker: of this host.
        leases: what they use.
        pid: the process.
    """

    def __init__(self, broker: Broker, leases: Sequence[Lease], pid: int) -> None:
        self._broker = broker
        self._leases = leases
        self._pid = pid

    def has_started(self) -> bool:
        """Whether any of them holds memory of a device, or is known to a server; True
        where that cannot be read.
        """
        pids = self._pids()
        held = memory_by_unit(self._measure(pids), self._slices())
        if any(
            processes is None or pids & processes.keys() for processes in held.values()
        ):
            return True
        return bool(self.clients())

    def is_working(self, since: float) -> bool | None:
        """Whether a device has worked for any of them since then; None when the driver
        does not say.
        """
        pids = self._pids()
        return is_working(self._measure(pids, since), self._slices(), pids)

    def clients(self) -> frozenset[int]:
        """Those of them that a server knows; none where it does not answer."""
        return (
            frozenset(pid for lease in self._leases for pid in self._known(lease))
            & self._pids()
        )

    def terminate(self, pid: int) -> None:
        """End a client's work through its server. Raises `ProviderError`."""
        for lease in self._leases:
            if pid in self._known(lease):
                self._broker.terminate(lease, pid)

    def _known(self, lease: Lease) -> frozenset[int]:
        try:
            return self._broker.clients(lease) or frozenset()
        except ProviderError:
            return frozenset()

    def _measure(self, pids: frozenset[int], since: float | None = None) -> HostSample:
        own = dict.fromkeys((lease.id for lease in self._leases), pids)
        return self._broker.devices.fresh(self._leases, own, since)

    def _pids(self) -> frozenset[int]:
        return tree({"": self._pid})[""].union(
            *(self._broker.memory.orphan_processes(lease.id) for lease in self._leases)
        )

    def _slices(self) -> list[Slice]:
        return [slice_ for lease in self._leases for slice_ in lease.slices]
