"""Suspends and resumes the device state of a lease, from the look at its processes
before to the proof after; what comes of it is a step of the device state.

Whatever a call returns, the driver is asked how much is left on the device: only that
frees memory for others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping

from jupyter_aistack.broker.liveness import root_pid
from jupyter_aistack.core.model.device_state import DeviceState, SuspendMethod
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.core.suspend.capability import SuspendCapability
from jupyter_aistack.core.suspend.departure import DeviceUse, has_left, staying_bytes
from jupyter_aistack.core.suspend.model import candidate_of, needed_bytes
from jupyter_aistack.exceptions import CheckpointFailed
from jupyter_aistack.providers.nvidia.checkpoint.inspection import inspect_processes
from jupyter_aistack.system.processes import tree

from .driver_checkpoint import (
    AWAY,
    FAILED,
    LOCKED,
    RUNNING,
    UNKNOWN,
    DriverCheckpoint,
    is_hopeless,
    is_still_working,
)
from .kernel_agent import AgentCall, Busy, KernelAgent
from .memory_probe import WORKING, MemoryProbe, MemoryReading, home_of
from .outcomes import (
    CONTEXT_UNKNOWN,
    Outcome,
    lost,
    remainder,
    resumed,
    stayed,
    still_suspended,
    suspended,
)
from .preflight import PreflightReport, why_not

STATE_UNKNOWN = "the driver does not say how it is"


class SuspendExecutor:
    """Moves the device states of this server's kernels. Call it in a thread of its own:
    a transfer takes seconds.

    Args:
        probe: reads what the driver says of a lease.
        checkpoints: suspends by the driver; unused where `capability` names another
            method.
        call_agent: has a kernel's agent do something.
        capability: how well this host can suspend.
        policy: margins and times.
        clock: seconds since the epoch.
        host_capacity: bytes of host memory that may still be taken by suspended state.
        log: gets a line for each transfer, with its bytes and seconds.
    """

    def __init__(
        self,
        *,
        probe: MemoryProbe,
        checkpoints: DriverCheckpoint,
        call_agent: AgentCall,
        capability: Callable[[], SuspendCapability],
        policy: SuspendPolicy,
        clock: Callable[[], float],
        host_capacity: Callable[[], int],
        log: logging.Logger,
    ) -> None:
        self._probe = probe
        self._checkpoints = checkpoints
        self._agent = KernelAgent(call_agent, probe.is_simulated)
        self._capability = capability
        self._policy = policy
        self._clock = clock
        self._host_capacity = host_capacity
        self._log = log

    @property
    def _policy_in_force(self) -> SuspendPolicy:
        return self._capability().measured(self._policy)

    # -- looking -----------------------------------------------------------------------

    def why_not_suspendable(self, lease: Lease) -> str:
        """Why the lease's state must stay; empty when it may be suspended. Moves
        nothing.

        Raises:
            Busy: a cell runs.
        """
        return why_not(self._preflight(lease, trims=False))

    def _preflight(self, lease: Lease, *, trims: bool) -> PreflightReport:
        """What is known of a lease's processes; with `trims` its agent first drops what
        is only cached.
        """
        reading = self._probe.read(lease)
        capability = self._capability()
        return PreflightReport(
            processes=inspect_processes(
                reading.pids, reading.contexts, listed=reading.listed
            ),
            root_pid=root_pid(lease.holder),
            report=self._agent.report(lease, trims=trims),
            elsewhere=reading.elsewhere,
            is_mig=any(slice_.kind.value == "mig" for slice_ in lease.slices),
            is_simulated=self._probe.is_simulated(lease),
            tier=capability.tier,
            why_tier=capability.why,
        )

    def _driver_states(self, lease: Lease) -> dict[int, str]:
        """What the driver says of the lease's processes that may use CUDA, by pid."""
        if self._probe.is_simulated(lease):
            return {}
        processes = inspect_processes(self._probe.pids(lease), ())
        return self._checkpoints.states(
            process.pid
            for process in processes
            if process.uses is None or "cuda" in process.uses
        )

    # -- suspend -----------------------------------------------------------------------

    def suspend(self, lease: Lease, is_wanted: Callable[[], bool]) -> Outcome:
        """Move a lease's state off its devices; what has come of it, or why it stays.

        Args:
            lease: its state is on its way out, by the ledger.
            is_wanted: whether a cell waits for it; asked right before it moves.
        """
        states = self._driver_states(lease)
        away = [pid for pid, state in states.items() if state in AWAY]
        if away:
            # An earlier server or helper ended in the middle of it: go on from there.
            return self._checkpoint(lease, away, DeviceUse())

        try:
            report = self._preflight(lease, trims=True)
        except Busy as busy:
            return self._stays(str(busy))
        why = why_not(report)
        if why:
            return self._stays(why, is_pinned=True)

        at_rest = self._probe.read if report.is_simulated else self._probe.at_rest
        reading = at_rest(lease)
        why = self._why_not_now(lease, reading, report)
        # Asked last: from here on a cell that begins has to wait for the way back.
        if not why and is_wanted():
            why = "a cell began"
        if why:
            return self._stays(why)
        return self._move_out(lease, report, reading)

    def _move_out(
        self, lease: Lease, report: PreflightReport, reading: MemoryReading
    ) -> Outcome:
        if report.contexts and report.tier is SuspendMethod.CHECKPOINT:
            return self._checkpoint(lease, report.contexts, reading.use)
        if report.report is not None and report.report.get("registered_bytes"):
            return self._offload(lease, report, reading)
        if report.is_simulated:
            size = self._probe.simulated_bytes(lease)
            note = "simulated: nothing has moved"
            return suspended(size, SuspendMethod.SIMULATED, note)
        return suspended(0, SuspendMethod.OFF, "nothing was on its device")

    def _why_not_now(
        self, lease: Lease, reading: MemoryReading, report: PreflightReport
    ) -> str:
        if report.is_simulated:
            return ""
        if reading.busy is not None and reading.busy > WORKING:
            return "its device works"
        if reading.held_bytes is None:
            return "the driver does not say what it holds"
        need = reading.held_bytes * len(home_of(lease))
        capacity = self._host_capacity()
        if need > capacity:
            return (
                f"the host has no memory for {format_bytes(need)}: "
                f"{format_bytes(capacity)} may be used"
            )
        return ""

    def _checkpoint(
        self, lease: Lease, pids: Collection[int], before: DeviceUse
    ) -> Outcome:
        """Suspend by the driver; `before` is what the processes held, nothing known
        where they are away already.
        """
        begin = time.perf_counter()
        try:
            seconds = self._checkpoints.suspend(pids)
        except CheckpointFailed as failed:
            return self._after_failed_checkpoint(failed)

        left = self._probe.left(lease, before)
        if not has_left(before, left.use):
            return self._undo_checkpoint(pids, remainder(left.held_bytes))
        size = before.held_bytes
        if size is None:
            size = max(slice_.memory_bytes for slice_ in lease.slices)
        note = self._logged_figures(lease, size, begin, seconds)
        return suspended(size, SuspendMethod.CHECKPOINT, note)

    def _after_failed_checkpoint(self, failed: CheckpointFailed) -> Outcome:
        state = failed.facts["state"]
        could_not = f"the driver could not suspend it: {failed.message}"
        if state == FAILED:
            return lost(could_not)
        if state != RUNNING:
            return self._stays(f"{STATE_UNKNOWN}: {failed.message}")
        if is_still_working(failed):
            return self._stays("its device work did not end in time")
        return self._stays(
            could_not,
            is_pinned=is_hopeless(failed),
            # After the lock comes the copy: some of the state has come back, then.
            is_restored=failed.facts.get("step") != "lock",
        )

    def _undo_checkpoint(self, pids: Collection[int], why: str) -> Outcome:
        try:
            self._checkpoints.resume(pids)
        except CheckpointFailed as failed:
            return lost(f"{why}, and it could not go on: {failed.message}")
        return self._stays(why, is_restored=True)

    def _offload(
        self, lease: Lease, report: PreflightReport, before: MemoryReading
    ) -> Outcome:
        """Have the kernel's own agent move what it has registered."""
        begin = time.perf_counter()
        answer = self._agent.copy_out(lease)
        if "error" in answer:
            return self._stays(answer["error"])

        size = int(answer["size_bytes"])
        if not report.is_simulated:
            most = staying_bytes(
                before.held_bytes,
                pool_bytes=report.own_pool_bytes,
                context_bytes=self._policy_in_force.context_bytes,
                contexts=len(report.contexts),
            )
            if most is None:
                return self._undo_offload(lease, size, CONTEXT_UNKNOWN)
            left = self._probe.settled(lease, most).held_bytes
            if left is None or left > most:
                why = f"{remainder(left)}: it is not registered"
                return self._undo_offload(lease, size, why)
            size = max(0, (before.held_bytes or 0) - left)
        note = self._logged_figures(lease, size, begin, {})
        return suspended(size, SuspendMethod.OFFLOAD, note)

    def _undo_offload(self, lease: Lease, size: int, why: str) -> Outcome:
        """Bring back what was registered: too much beside it may have stayed."""
        if "error" in self._agent.copy_in(lease):
            # What is out stays out until a cell needs it.
            return suspended(size, SuspendMethod.OFFLOAD, why)
        return self._stays(why, is_pinned=True)

    def _stays(
        self, why: str, *, is_pinned: bool = False, is_restored: bool = False
    ) -> Outcome:
        return stayed(self._clock(), why, is_pinned=is_pinned, is_restored=is_restored)

    # -- resume ------------------------------------------------------------------------

    def resume(self, lease: Lease) -> Outcome:
        """Move a lease's state back in, where there is capacity right now: a restore by
        the driver that meets too little loses the state.
        """
        state = lease.residence
        assert state is not None
        if state.tier in (SuspendMethod.OFF, SuspendMethod.SIMULATED):
            return resumed(self._clock())
        why = self._why_no_capacity(lease, state)
        if why:
            return still_suspended(why)

        begin = time.perf_counter()
        if state.tier is not SuspendMethod.OFFLOAD:
            return self._restore(lease, state, begin)
        answer = self._agent.copy_in(lease)
        if "error" in answer:
            return still_suspended(answer["error"])
        return self._is_back(lease, state, begin, {})

    def _restore(self, lease: Lease, state: DeviceState, begin: float) -> Outcome:
        states = self._driver_states(lease)
        pids = [pid for pid, driver_state in states.items() if driver_state in AWAY]
        if not pids:
            is_unknown = UNKNOWN in states.values() and RUNNING not in states.values()
            if is_unknown:
                return still_suspended(STATE_UNKNOWN)
            # An earlier server has restored it, or what was suspended has ended.
            return self._is_back(lease, state, begin, {})

        try:
            seconds = self._checkpoints.resume(pids)
        except CheckpointFailed as failed:
            if failed.facts["state"] == FAILED:
                return lost(f"the driver could not restore it: {failed.message}")
            return still_suspended(failed.message)
        return self._is_back(lease, state, begin, seconds)

    def _why_no_capacity(self, lease: Lease, state: DeviceState) -> str:
        """What its devices lack for it to be resumed; empty for nothing."""
        if self._probe.is_simulated(lease):
            return ""
        size = max(slice_.memory_bytes for slice_ in lease.slices)
        candidate = candidate_of(lease.id, home_of(lease), size, state)
        for device, memory in self._probe.cards(home_of(lease)).items():
            if memory is None:
                return f"the driver does not say what is free on {device}"
            need = needed_bytes(candidate, memory, self._policy_in_force)
            if memory.free_bytes < need:
                return (
                    f"{device} has {format_bytes(memory.free_bytes)} free, and "
                    f"{format_bytes(need)} are needed"
                )
        return ""

    def _is_back(
        self,
        lease: Lease,
        state: DeviceState,
        begin: float,
        seconds: Mapping[str, float],
    ) -> Outcome:
        size = state.state_bytes or 0
        figures = self._logged_figures(lease, size, begin, seconds)
        return resumed(self._clock(), f"{figures}, back on its device")

    # -- before a process is killed ----------------------------------------------------

    @property
    def can_restore(self) -> bool:
        """Whether the driver restores processes here."""
        return self._capability().tier is SuspendMethod.CHECKPOINT

    def suspend_before_kill(self, lease: Lease, pid: int) -> str:
        """Take a restored state off the device before its process `pid`, and those
        below it, are killed: killing a restored process has hung hosts
        (NVIDIA/cuda-checkpoint#53).

        Returns:
            What is left there, in one sentence; empty when it may be killed.
        """
        if lease.residence is None or not lease.residence.is_restored:
            return ""
        before = self._probe.read(lease)
        states = self._states_below(lease, pid)
        pids = {each for each, state in states.items() if state in (RUNNING, LOCKED)}
        pids &= before.contexts or pids
        if not pids:
            return STATE_UNKNOWN if UNKNOWN in states.values() else ""

        try:
            self._checkpoints.suspend(pids)
        except CheckpointFailed as failed:
            return f"it could not be suspended before it is ended: {failed.message}"
        if pid != root_pid(lease.holder):
            return ""
        left = self._probe.left(lease, before.use)
        return "" if has_left(before.use, left.use) else remainder(left.held_bytes)

    def _states_below(self, lease: Lease, pid: int) -> dict[int, str]:
        """The driver's states of process `pid` of a lease, and of those below it."""
        if pid not in self._probe.pids(lease):
            return {}
        ending = tree({lease.id: pid})[lease.id]
        states = self._driver_states(lease)
        return {each: state for each, state in states.items() if each in ending}

    def _logged_figures(
        self, lease: Lease, size_bytes: int, begin: float, seconds: Mapping[str, float]
    ) -> str:
        """What a transfer came to, for people; the log has the seconds of each step as
        well.
        """
        figures = f"{format_bytes(size_bytes)} in {time.perf_counter() - begin:.1f} s"
        each = "".join(f", {step} {taken:.3f} s" for step, taken in seconds.items())
        self._log.info("lease %s: %s%s", lease.id, figures, each)
        return figures
