"""Which transfers begin now: a lease that waits is resumed, or has idle leases
suspended; one transfer at a time on each device.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.plan import TransferDirection

from .feasibility import TransferStep, not_suspendable
from .model import HostMemory, SuspendCandidate, needed_bytes, promised_bytes, retry_at

MOST_LEAVING = 16
"""How many leases are suspended at once for requests that wait: all their state goes
through the memory of one host.
"""


def plan_transfers(host: HostMemory, now: float) -> tuple[TransferStep, ...]:
    """The transfers to begin at `now` (seconds since the epoch); pure. At most one runs
    on each device at a time.

    Leases that wait to be resumed are served in order. A lease that cannot be resumed
    yet has a claim on its devices, so that later leases do not pass it there, but only
    as long as something runs, rests or moves on them: that will end, and then it is
    tried again. A claim where all stands still could hold up the very leases that must
    go on before it can be served.
    """
    transfers = TransferPlan(host, now)
    transfers.begin()
    return tuple(transfers.steps)


class TransferPlan:
    """The transfers that begin at one moment, and what they leave.

    Args:
        host: the host, at that moment.
        now: seconds since the epoch.
        may_suspend: False where nothing is suspended any more; what is may be resumed
            all the same.

    Attributes:
        steps: what has been decided so far.
    """

    def __init__(
        self, host: HostMemory, now: float, *, may_suspend: bool = True
    ) -> None:
        self.now = now
        self.may_suspend = may_suspend
        self.steps: list[TransferStep] = []
        self._initial = host
        self._candidates = {each.lease_id: each for each in host.candidates}
        self._moving = {
            device_id
            for candidate in host.candidates
            if candidate.is_moving
            for device_id in candidate.devices
        }
        self._claimed: set[str] = set()
        self._host_left = host.host_bytes - host.suspended_bytes
        # Derived from the candidates, and worked out again after each change of them.
        self._host: HostMemory | None = host
        self._blocked: frozenset[str] | None = None
        self._idle: list[SuspendCandidate] | None = None

    @property
    def moving(self) -> Collection[str]:
        """The devices on which a transfer runs."""
        return self._moving

    @property
    def host(self) -> HostMemory:
        """The host with all that has been decided."""
        if self._host is None:
            candidates = tuple(self._candidates.values())
            self._host = replace(self._initial, candidates=candidates)
        return self._host

    def candidate(self, lease_id: str) -> SuspendCandidate | None:
        """The candidate of that id, as it is now."""
        return self._candidates.get(lease_id)

    def add(self, candidate: SuspendCandidate) -> None:
        """A candidate is new, or has changed."""
        self._candidates[candidate.lease_id] = candidate
        self._host = None
        self._blocked = None
        self._idle = None

    def begin(self) -> None:
        """Resume the leases that wait, or suspend others for them; then suspend those
        that must go, and those that have been idle for long.
        """
        candidates = sorted(self._candidates.values(), key=_waiting_order)
        for candidate in candidates:
            is_parked = candidate.phase is StatePhase.PARKED
            if is_parked and candidate.wanted_at is not None:
                self._serve(candidate)

        hard = self._initial.policy.hard_seconds
        due = [
            candidate
            for candidate in candidates
            if candidate.must_go or self.now - candidate.active_at >= hard
        ]
        due.sort(key=lambda each: (not each.must_go, *_least_recent(each)))
        for candidate in due:
            is_claimed = not self._claimed.isdisjoint(candidate.devices)
            if not is_claimed and self._can_suspend(candidate):
                self._suspend(candidate)

    # -- for a new request -------------------------------------------------------------

    def idle(self) -> list[SuspendCandidate]:
        """Those that could be suspended for a request, now or when what moves there has
        moved, least recently used first.
        """
        if not self.may_suspend:
            return []
        if self._idle is None:
            spare = (each for each in self._candidates.values() if self._is_spare(each))
            self._idle = sorted(spare, key=_least_recent)
        return self._idle

    @property
    def is_full(self) -> bool:
        """Whether so many are being suspended already that no more are for those who
        wait.
        """
        leaving = [
            candidate
            for candidate in self._candidates.values()
            if candidate.phase is StatePhase.PARKING
        ]
        return len(leaving) >= MOST_LEAVING

    def would_fit_host(self, candidates: Iterable[SuspendCandidate]) -> bool:
        """Whether the host could hold the state of all of them as well."""
        return sum(candidate.host_bytes for candidate in candidates) <= self._host_left

    def mark_preempted(self, lease_ids: Iterable[str]) -> list[SuspendCandidate]:
        """These are being preempted: they are suspended as soon as they are idle.

        Returns:
            The candidates among them.
        """
        marked = []
        for lease_id in sorted(lease_ids):
            candidate = self._candidates.get(lease_id)
            if candidate is not None and candidate.is_subject:
                candidate = replace(candidate, must_go=True)
                self.add(candidate)
                marked.append(candidate)
        return marked

    def free_device(self, candidates: Iterable[SuspendCandidate]) -> None:
        """Suspend the candidates that can go now: one on each device. The others' turn
        comes next time.
        """
        for candidate in candidates:
            if self._can_suspend(candidate):
                self._suspend(candidate)

    def after(
        self, ended: Collection[str], suspended: Iterable[SuspendCandidate] = ()
    ) -> HostMemory:
        """The host once these leases have ended, and these candidates are suspended."""
        then = dict(self._candidates)
        for candidate in suspended:
            then[candidate.lease_id] = replace(candidate, phase=StatePhase.PARKED)
        left = tuple(each for lease_id, each in then.items() if lease_id not in ended)
        return replace(self._initial, candidates=left)

    # -- one after the other -----------------------------------------------------------

    def _serve(self, candidate: SuspendCandidate) -> None:
        """Resume a waiting lease, or suspend what is in its way, or let it wait."""
        devices = candidate.devices
        if not self._claimed.isdisjoint(devices):
            return
        if not self._moving.isdisjoint(devices):
            self._claimed.update(devices)
            return
        if not any(self._missing_bytes(candidate, device_id) for device_id in devices):
            self._start(TransferDirection.RESUME, candidate, StatePhase.RESTORING)
            return

        victims = self._victims(candidate)
        for victim in victims:
            self._suspend(victim)
        if victims or any(self._will_leave(other) for other in self._on(devices)):
            self._claimed.update(devices)

    def _missing_bytes(self, candidate: SuspendCandidate, device_id: str) -> int:
        """Bytes that are missing on a device for a lease to be resumed; 0 for none."""
        device = self._initial.devices[device_id]
        policy = self._initial.policy
        taken = sum(other.memory_bytes for other in self._on([device_id]))
        promised = promised_bytes(candidate, device, policy)
        left_of_budget = device.budget_bytes - taken - promised
        left_free = device.free_bytes - needed_bytes(candidate, device, policy)
        return max(0, -min(left_of_budget, left_free))

    def _victims(self, candidate: SuspendCandidate) -> Sequence[SuspendCandidate]:
        """Which leases to suspend now for a lease that waits, least recently used
        first: one on each device; none where that is in vain.
        """
        missing = {
            device_id: self._missing_bytes(candidate, device_id)
            for device_id in candidate.devices
        }
        chosen = []
        host_left = self._host_left
        for other in sorted(self._on(candidate.devices), key=_least_recent):
            helped = [device for device in other.devices if missing.get(device, 0) > 0]
            fits_host = other.host_bytes <= host_left
            if helped and fits_host and self._may_leave(other):
                host_left -= other.host_bytes
                chosen.append(other)
                for device_id in helped:
                    missing[device_id] -= other.memory_bytes
        if any(left > 0 for left in missing.values()):
            return ()
        return tuple(_apart(chosen))

    def _on(self, devices: Iterable[str]) -> list[SuspendCandidate]:
        wanted = set(devices)
        return [
            candidate
            for candidate in self._candidates.values()
            if candidate.is_on_device and not wanted.isdisjoint(candidate.devices)
        ]

    def _will_leave(self, candidate: SuspendCandidate) -> bool:
        """Whether what keeps it on its device now ends by itself."""
        idle_seconds = self.now - candidate.active_at
        rests = idle_seconds < self._initial.policy.warm_seconds
        if candidate.is_busy or (rests and not candidate.pinned):
            return True
        return not self._moving.isdisjoint(candidate.devices)

    def _can_suspend(self, candidate: SuspendCandidate) -> bool:
        return self._may_leave(candidate) and candidate.host_bytes <= self._host_left

    def _may_leave(self, candidate: SuspendCandidate) -> bool:
        if not self.may_suspend or not self._moving.isdisjoint(candidate.devices):
            return False
        return self._is_spare(candidate)

    def _is_spare(self, candidate: SuspendCandidate) -> bool:
        """Whether it is idle, has rested for long enough unless its user wants it gone,
        and could be resumed.
        """
        is_resident = candidate.phase is StatePhase.RESIDENT
        if not is_resident or candidate.is_busy or candidate.pinned:
            return False
        policy = self._initial.policy
        idle_seconds = self.now - candidate.active_at
        has_rested = candidate.must_go or idle_seconds >= policy.warm_seconds
        if not has_rested or self.now < retry_at(candidate, policy):
            return False
        if self._blocked is None:
            _, self._blocked = not_suspendable(self.host)
        return candidate.lease_id not in self._blocked

    def _suspend(self, candidate: SuspendCandidate) -> None:
        self._host_left -= candidate.host_bytes
        self._start(TransferDirection.SUSPEND, candidate, StatePhase.PARKING)

    def _start(
        self,
        direction: TransferDirection,
        candidate: SuspendCandidate,
        phase: StatePhase,
    ) -> None:
        step = TransferStep(direction=direction, lease_id=candidate.lease_id)
        self.steps.append(step)
        self.add(replace(candidate, phase=phase))
        self._moving.update(candidate.devices)


def _apart(candidates: Iterable[SuspendCandidate]) -> Iterator[SuspendCandidate]:
    """The candidates that share no device with an earlier candidate: the others' turn
    comes next time.
    """
    taken: set[str] = set()
    for candidate in candidates:
        if taken.isdisjoint(candidate.devices):
            taken.update(candidate.devices)
            yield candidate


def _waiting_order(candidate: SuspendCandidate) -> tuple[float, str]:
    since = math.inf if candidate.wanted_at is None else candidate.wanted_at
    return since, candidate.lease_id


def _least_recent(candidate: SuspendCandidate) -> tuple[float, str]:
    return candidate.active_at, candidate.lease_id
