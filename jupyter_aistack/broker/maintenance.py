"""The broker's regular turn: keep what lives, measure it, then run a cycle."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from jupyter_aistack.core.accounting.measurement import usage_by_lease
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import HostSample, Usage
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.ledger.actor import acting_by_itself

from .cycle import SchedulingCycle
from .drains import Drains
from .fault_monitor import FaultMonitor
from .host_state import HostState
from .leases import Leases
from .mig import MIGReconfigurer
from .usage_meter import UsageMeter
from .watchdogs import Watchdogs

log = logging.getLogger("jupyter_aistack")

SAMPLE_SECONDS = 1.0
"""One turn asks the drivers once: all its parts read a sample this old."""
USAGE_SECONDS = 2.0
"""So old may be what people are shown; a turn every two seconds serves them."""


class Maintenance:
    """What has to happen on a host every few seconds.

    Args:
        host_state: provides the leases.
        cycle: run at the end of each turn.
        leases: renews them.
        watchdogs: find which processes use them, and act on those that use more than
            was leased.
        show_names: whether users see the names of others.

    Attributes:
        drains: takes devices out of placement by hand.
        usage_meter: keeps the books.
        mig: creates MIG instances for waiting requests.
    """

    def __init__(
        self,
        host_state: HostState,
        cycle: SchedulingCycle,
        leases: Leases,
        watchdogs: Watchdogs,
        *,
        show_names: bool,
    ) -> None:
        ledger = host_state.ledger
        devices = host_state.devices
        now = host_state.now
        self.usage_meter = UsageMeter(
            ledger,
            devices,
            host=host_state.host,
            clock=now,
            pids=watchdogs.processes.pids,
            folds_cells=not host_state.history.archiver.is_on,
        )
        self.mig = MIGReconfigurer(devices, now)
        self.drains = Drains(host_state, cycle)
        self._faults = FaultMonitor(devices, ledger, now, show_names=show_names)
        self._host_state = host_state
        self._cycle = cycle
        self._leases = leases
        self._processes = watchdogs.processes
        self._memory = watchdogs.memory
        self._strays = watchdogs.strays
        self._history = host_state.history

    def maintain(self) -> tuple[Event, ...]:
        """Renew every lease of this host whose process lives, measure, and run a cycle.
        Returns what the cycle did.
        """
        with acting_by_itself():
            return self._maintain()

    def _maintain(self) -> tuple[Event, ...]:
        self._host_state.show_presence()
        # Renewed first: the cycle at the end would take for expired what lives.
        self._leases.renew_living()
        self._record_usage_or_log()

        leases = self._host_state.leases()
        self._memory.check(leases, lambda: self.sample(leases))
        self._faults.check(leases, lambda: self._processes.pids(leases))
        # After the memory, whose look tells which processes outside a lease's tree are
        # its own.
        self._strays.check()
        self.drains.end_over()

        events = self._cycle.run()
        self._host_state.report()
        self._history.tend()
        if self.mig.serve(self._cycle.snapshot):
            # Granted at once: another request might have the instances destroyed again.
            events = (*events, *self._cycle.run())
        return events

    def usage(self) -> tuple[dict[str, Usage], dict[str, Usage]]:
        """What is in use now: per lease id, and per device id; at most two seconds
        old.
        """
        leases = self._leases.current()
        sample = self.sample(leases, USAGE_SECONDS)
        return usage_by_lease(sample, leases), sample.device_usage()

    def recent_usage(self, max_age_seconds: float) -> dict[str, Usage]:
        """What each lease used by the last sample that was taken for anybody; none
        where that is older. Asks no driver.
        """
        latest = self._host_state.devices.latest
        now = self._host_state.now()
        if latest is None or not 0 <= now - latest.at < max_age_seconds:
            return {}
        return usage_by_lease(latest, latest.leases.values())

    def sample(
        self, leases: Sequence[Lease], max_age_seconds: float = SAMPLE_SECONDS
    ) -> HostSample:
        """What every device reports; see `DeviceManager.sample`."""
        return self._host_state.devices.sample(
            leases, self._processes.pids, max_age_seconds=max_age_seconds
        )

    def record_usage(self, *, settle: bool = False) -> None:
        """Measure what was used and, every ten seconds or at once, write it down; see
        :class:`UsageMeter`.
        """
        state = self._host_state.read()
        self.usage_meter.record(state.leases, version=state.version, settle=settle)

    def _record_usage_or_log(self) -> None:
        """Record usage; a failure there must not keep leases from being renewed."""
        try:
            self.record_usage()
        except AIStackError as error:
            log.warning("usage is recorded later: %s", error.message)
        except Exception:
            log.exception("recording usage failed")
