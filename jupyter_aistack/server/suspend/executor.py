"""One lease's state out or back in, from the look before to the proof after; what comes
of it is a residence's step.

Whatever a call returns, the driver is asked how much is left on the device: only that
frees room for others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

from jupyter_aistack.core.model import device_state as steps
from jupyter_aistack.core.model.device_state import DeviceState, SuspendMethod
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import SuspendPolicy
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.core.suspend.capability import SuspendCapability
from jupyter_aistack.core.suspend.model import candidate_of, needed_bytes
from jupyter_aistack.exceptions import CheckpointFailed
from jupyter_aistack.system.processes import tree

from .driver_checkpoint import (
    AWAY,
    FAILED,
    LOCKED,
    RUNNING,
    UNKNOWN,
    DriverCheckpoint,
    is_hopeless,
)
from .memory_probe import WORKING, MemoryProbe, MemoryReading, home_of, root_of
from .preflight import PreflightReport, look, why_not

JSON = dict[str, Any]
Change = Callable[[DeviceState], DeviceState]
PATIENCE_SECONDS = 5.0
REPORT_SECONDS = 30.0
COPY_SECONDS = 600.0
"""How long until an agent hears of an order; how long a report, or a copy of registered
objects, may take then.
"""
RESTART = "restart the kernel, and run its cells again"


class AgentCall(Protocol):
    """How a kernel's agent is told to do something; see `server.agents.Agents.ask`."""

    def __call__(
        self,
        kernel_id: str,
        act: str,
        *,
        kinds: Collection[str] = (),
        patience: float,
        seconds: float,
    ) -> JSON | None:
        """Its answer; None when no agent has heard."""


class Busy(Exception):
    """A kernel cannot be asked now; the argument says why."""


class SuspendExecutor:
    """Moves the states of this server's kernels. Call it in a thread of its own: a move
    takes seconds.

    Args:
        gauge: what the driver says of a lease.
        checkpoints: the driver's way; unused where `capability` names another.
        ask: how agents are told.
        capability: how well this host can suspend.
        policy: margins and times.
        clock: seconds since the epoch.
        host_capacity: bytes of host memory that may still be taken by suspended state.
        log: where each move is told, with its bytes and seconds.
    """

    def __init__(
        self,
        *,
        gauge: MemoryProbe,
        checkpoints: DriverCheckpoint,
        ask: AgentCall,
        capability: Callable[[], SuspendCapability],
        policy: SuspendPolicy,
        clock: Callable[[], float],
        host_capacity: Callable[[], int],
        log: logging.Logger,
    ) -> None:
        self._gauge = gauge
        self._checkpoints = checkpoints
        self._ask = ask
        self._capability = capability
        self._policy = policy
        self._clock = clock
        self._host_capacity = host_capacity
        self._log = log

    # -- looking -----------------------------------------------------------------------

    def find_pin_reason(self, lease: Lease) -> str:
        """Why the lease's state must stay; empty when it may be moved. Moves nothing.

        Raises:
            NotNow: a cell runs.
        """
        return why_not(self._look(lease, self._gauge.read(lease), "report"))

    def _look(self, lease: Lease, reading: MemoryReading, act: str) -> PreflightReport:
        """What is known of it; its agent reports, and with ``trim`` it drops what is
        only cached first.
        """
        ready = self._capability()
        kinds = self._kinds(lease)
        report = self._ask(
            lease.holder.id,
            act,
            kinds=kinds,
            patience=PATIENCE_SECONDS,
            seconds=REPORT_SECONDS,
        )
        if report is not None and report.get("is_busy"):
            raise Busy(report["error"])
        return PreflightReport(
            processes=look(reading.pids, reading.contexts),
            root_pid=root_of(lease),
            report=None if report is None or "error" in report else report,
            elsewhere=reading.elsewhere,
            is_mig=any(piece.kind.value == "mig" for piece in lease.slices),
            is_simulated=self._gauge.is_simulated(lease),
            tier=ready.tier,
            why_tier=ready.why,
        )

    def _kinds(self, lease: Lease) -> frozenset[str]:
        """What a registration may be for; on simulated devices the CPU stands in for a
        GPU.
        """
        return frozenset(
            {"cuda", "cpu"} if self._gauge.is_simulated(lease) else {"cuda"}
        )

    # -- out ---------------------------------------------------------------------------

    def park(self, lease: Lease, is_wanted: Callable[[], bool]) -> Change:
        """Move it out; what has come of it, or why it stays.

        Args:
            lease: it is parking.
            is_wanted: whether a cell waits for it; asked right before something moves.
        """
        away = [pid for pid, state in self._states(lease).items() if state in AWAY]
        if away:  # an earlier server, or helper, was in the middle of it
            return self._check_out(lease, away, None)
        try:
            found = self._look(lease, self._gauge.read(lease), "trim")
        except Busy as busy:
            return self._stays(str(busy))
        why = why_not(found)
        if why:
            return self._stays(why, is_pinned=True)
        reading = (
            self._gauge.read(lease)
            if found.is_simulated
            else self._gauge.at_rest(lease)
        )
        why = self._why_not_now(lease, reading, found) or (
            "a cell began" if is_wanted() else ""
        )
        if why:
            return self._stays(why)
        if found.contexts and found.tier is SuspendMethod.CHECKPOINT:
            return self._check_out(lease, found.contexts, reading.held_bytes)
        if found.report is not None and found.report.get("registered_bytes"):
            return self._offload(lease, found, reading)
        if found.is_simulated:
            return _left(
                self._gauge.simulated_bytes(lease),
                SuspendMethod.SIMULATED,
                "simulated: nothing has moved",
            )
        return _left(0, SuspendMethod.OFF, "nothing was on its device")

    def _why_not_now(
        self, lease: Lease, reading: MemoryReading, found: PreflightReport
    ) -> str:
        if found.is_simulated:
            return ""
        if reading.busy is not None and reading.busy > WORKING:
            return "its device works"
        if reading.held_bytes is None:
            return "the driver does not say what it holds"
        need = reading.held_bytes * len(home_of(lease))
        room = self._host_capacity()
        if need > room:
            return f"the host has no room for {format_bytes(need)}: {format_bytes(room)} may be used"
        return ""

    def _states(self, lease: Lease) -> dict[int, str]:
        """How its processes that may use CUDA stand with the driver."""
        if self._gauge.is_simulated(lease):
            return {}
        processes = look(self._gauge.pids(lease), ())
        return self._checkpoints.states(
            p.pid for p in processes if p.uses is None or "cuda" in p.uses
        )

    def _check_out(
        self, lease: Lease, pids: Collection[int], held_bytes: int | None
    ) -> Change:
        """By the driver; `held_bytes` is what it held, None when that is not known any
        more.
        """
        begin = time.perf_counter()
        try:
            seconds = self._checkpoints.out(pids)
        except CheckpointFailed as failed:
            return self._stays_after(failed)
        left = self._gauge.settled(lease, 0)
        if left.held_bytes != 0:
            return self._back_after_all(pids, _rest(left.held_bytes))
        size = (
            held_bytes
            if held_bytes is not None
            else max(p.memory_bytes for p in lease.slices)
        )
        return _left(
            size, SuspendMethod.CHECKPOINT, self._figures(lease, size, begin, seconds)
        )

    def _stays_after(self, failed: CheckpointFailed) -> Change:
        state = failed.facts["state"]
        if state == FAILED:
            return _lost(f"the driver could not suspend it: {failed.message}")
        if state != RUNNING:
            return self._stays(f"the driver does not say how it is: {failed.message}")
        if failed.facts.get("step") == "lock" and "NOT_READY" in failed.message:
            return self._stays("its device work did not end in time")
        why = f"the driver could not suspend it: {failed.message}"
        was_copied = failed.facts.get("step") != "lock"
        return self._stays(
            why, is_pinned=is_hopeless(failed), is_restored=was_copied
        )  # some of it came back, then

    def _back_after_all(self, pids: Collection[int], why: str) -> Change:
        try:
            self._checkpoints.back(pids)
        except CheckpointFailed as failed:
            return _lost(f"{why}, and it could not go on: {failed.message}")
        return self._stays(why, is_restored=True)

    def _offload(
        self, lease: Lease, found: PreflightReport, before: MemoryReading
    ) -> Change:
        """By its own agent: what it has registered."""
        begin = time.perf_counter()
        said = self._tell(lease, "out")
        if "error" in said:
            return self._stays(said["error"])
        size = int(said["size_bytes"])
        if not found.is_simulated:
            most = self._policy.context_bytes * max(1, len(found.contexts))
            left = self._gauge.settled(lease, most)
            if left.held_bytes is None or left.held_bytes > most:
                why = f"{_rest(left.held_bytes)}: it is not registered"
                if "error" in self._tell(
                    lease, "in"
                ):  # what is out stays out until a cell wants it
                    return _left(size, SuspendMethod.OFFLOAD, why)
                return self._stays(why, is_pinned=True)
            size = max(0, (before.held_bytes or 0) - left.held_bytes)
        return _left(size, SuspendMethod.OFFLOAD, self._figures(lease, size, begin, {}))

    def _tell(self, lease: Lease, act: str) -> JSON:
        answer = self._ask(
            lease.holder.id,
            act,
            kinds=self._kinds(lease),
            patience=PATIENCE_SECONDS,
            seconds=COPY_SECONDS,
        )
        return {"error": "nothing in its kernel answers"} if answer is None else answer

    def _stays(
        self, why: str, *, is_pinned: bool = False, is_restored: bool = False
    ) -> Change:
        now = self._clock()

        def change(residence: DeviceState) -> DeviceState:
            stayed = steps.suspend_failed(residence, now, why)
            stayed = steps.mark_restored(stayed) if is_restored else stayed
            return steps.with_pin_reason(stayed, why) if is_pinned else stayed

        return change

    # -- back --------------------------------------------------------------------------

    def bring_back(self, lease: Lease) -> Change:
        """Move it back in, where there is room right now; a driver's restore that meets
        too little loses it.
        """
        residence = lease.residence
        assert residence is not None
        if residence.tier in (SuspendMethod.OFF, SuspendMethod.SIMULATED):
            return _returned(self._clock(), "")
        why = self._no_room(lease, residence)
        if why:
            return lambda held: steps.resume_failed(held, why)
        begin = time.perf_counter()
        if residence.tier is SuspendMethod.OFFLOAD:
            said = self._tell(lease, "in")
            if "error" in said:
                return lambda held: steps.resume_failed(held, said["error"])
            return self._is_back(lease, residence, begin, {})
        return self._restore(lease, residence, begin)

    def _restore(self, lease: Lease, residence: DeviceState, begin: float) -> Change:
        states = self._states(lease)
        pids = [pid for pid, state in states.items() if state in AWAY]
        if not pids and UNKNOWN in states.values() and RUNNING not in states.values():
            return lambda held: steps.resume_failed(
                held, "the driver does not say how it is"
            )
        if (
            not pids
        ):  # an earlier server has restored it, or what was suspended has ended
            return self._is_back(lease, residence, begin, {})
        try:
            seconds = self._checkpoints.back(pids)
        except CheckpointFailed as failed:
            if failed.facts["state"] == FAILED:
                return _lost(f"the driver could not restore it: {failed.message}")
            message = failed.message
            return lambda held: steps.resume_failed(held, message)
        return self._is_back(lease, residence, begin, seconds)

    def _no_room(self, lease: Lease, residence: DeviceState) -> str:
        """What its devices lack for it to come back; empty for nothing."""
        if self._gauge.is_simulated(lease):
            return ""
        size = max(piece.memory_bytes for piece in lease.slices)
        candidate = candidate_of(lease.id, home_of(lease), size, residence)
        for device, card in self._gauge.cards(home_of(lease)).items():
            if card is None:
                return f"the driver does not say what is free on {device}"
            need = needed_bytes(candidate, card, self._policy)
            if card.free_bytes < need:
                return f"{device} has {format_bytes(card.free_bytes)} free, and {format_bytes(need)} are needed"
        return ""

    def _is_back(
        self,
        lease: Lease,
        residence: DeviceState,
        begin: float,
        seconds: Mapping[str, float],
    ) -> Change:
        figures = self._figures(lease, residence.state_bytes or 0, begin, seconds)
        return _returned(self._clock(), f"{figures}, back on its device")

    # -- before the end ----------------------------------------------------------------

    @property
    def can_restore(self) -> bool:
        """Whether the driver restores processes here."""
        return self._capability().tier is SuspendMethod.CHECKPOINT

    def suspend_before_kill(self, lease: Lease, pid: int) -> str:
        """Take away the state of a process of a lease, and of those below it, if
        whichever server has restored it.

        Killing a restored process has hung hosts (NVIDIA/cuda-checkpoint#53).

        Returns:
            What is left there, in one sentence; empty when it may be killed.
        """
        if lease.residence is None or not lease.residence.is_restored:
            return ""
        states = self._states(lease) if pid in self._gauge.pids(lease) else {}
        ending = tree({lease.id: pid})[lease.id]
        pids = {
            one
            for one, state in states.items()
            if state in (RUNNING, LOCKED) and one in ending
        }
        pids &= self._gauge.read(lease).contexts or pids
        if not pids:
            is_unknown = any(
                state == UNKNOWN for one, state in states.items() if one in ending
            )
            return "the driver does not say how it is" if is_unknown else ""
        try:
            self._checkpoints.out(pids)
        except CheckpointFailed as failed:
            return f"it could not be suspended before it is ended: {failed.message}"
        left = self._gauge.settled(lease, 0) if pid == root_of(lease) else None
        return "" if left is None or left.held_bytes == 0 else _rest(left.held_bytes)

    def _figures(
        self, lease: Lease, size_bytes: int, begin: float, seconds: Mapping[str, float]
    ) -> str:
        """What a move came to, for people; the log has the seconds of each step as
        well.
        """
        figures = f"{format_bytes(size_bytes)} in {time.perf_counter() - begin:.1f} s"
        each = "".join(f", {step} {taken:.3f} s" for step, taken in seconds.items())
        self._log.info("lease %s: %s%s", lease.id, figures, each)
        return figures


def _rest(held_bytes: int | None) -> str:
    if held_bytes is None:
        return "the driver does not say what is left on its device"
    return f"{format_bytes(held_bytes)} stayed on its device"


def _left(state_bytes: int, tier: SuspendMethod, note: str) -> Change:
    return lambda residence: replace(
        steps.suspended(residence, state_bytes=state_bytes, tier=tier), note=note
    )


def _returned(now: float, note: str) -> Change:
    return lambda residence: replace(steps.resumed(residence, now), note=note)


def _lost(why: str) -> Change:
    return lambda residence: steps.mark_lost(residence, f"{why}; {RESTART}")
