"""A lease and the steps it may take.

Read the table aloud: *a granted lease that is activated becomes active*. A pair that is
not in
the table is not a step, and asking for it raises and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

from jupyter_aistack.exceptions import InvalidTransition

from .condition import Condition, ConditionKind, Conditions, condition_of
from .device import Enforcement, Slice, SliceKind
from .device_state import DeviceState
from .limit import Limits, limited
from .request import Holder
from .spec import Spec


class LeaseState(StrEnum):
    GRANTED = "granted"  # in the ledger
    ACTIVE = "active"  # prepared, verified and in use
    SUSPENDED = "suspended"  # its device state is in host memory
    RELEASING = "releasing"  # being torn down; still holds its slices
    ENDED = "ended"


class Outcome(StrEnum):
    """How an ended lease ended."""

    RELEASED = "released"
    EXPIRED = "expired"
    PREEMPTED = "preempted"
    FAILED = "failed"
    ABANDONED = "abandoned"  # its holder died without releasing it
    RECLAIMED = "reclaimed"  # it was not used
    LAPSED = "lapsed"  # nobody renewed it, and its holder cannot be seen

    @property
    def label(self) -> str:
        """The outcome in words."""
        why = _WHY.get(self)
        if why:
            return f"{self.value}: {why}"
        return self.value


_WHY = {
    Outcome.ABANDONED: "its holder was gone",
    Outcome.LAPSED: "nobody kept it",
}


class LeaseTransition(StrEnum):
    """What may happen to a lease."""

    ACTIVATE = "activate"
    SUSPEND = "suspend"
    RESUME = "resume"
    RELEASE = "release"
    FINISH = "finish"
    EXPIRE = "expire"
    PREEMPT = "preempt"
    FAIL = "fail"
    REAP = "reap"
    RECLAIM = "reclaim"
    LAPSE = "lapse"


_G, _A, _S, _R, _E = LeaseState
_ENDINGS: dict[LeaseTransition, Outcome] = {
    LeaseTransition.FINISH: Outcome.RELEASED,
    LeaseTransition.EXPIRE: Outcome.EXPIRED,
    LeaseTransition.PREEMPT: Outcome.PREEMPTED,
    LeaseTransition.FAIL: Outcome.FAILED,
    LeaseTransition.REAP: Outcome.ABANDONED,
    LeaseTransition.RECLAIM: Outcome.RECLAIMED,
    LeaseTransition.LAPSE: Outcome.LAPSED,
}
_SUDDEN = (
    LeaseTransition.EXPIRE,
    LeaseTransition.PREEMPT,
    LeaseTransition.FAIL,
    LeaseTransition.REAP,
    LeaseTransition.RECLAIM,
    LeaseTransition.LAPSE,
)

TRANSITIONS: dict[tuple[LeaseState, LeaseTransition], LeaseState] = {
    (_G, LeaseTransition.ACTIVATE): _A,
    (_A, LeaseTransition.ACTIVATE): _A,  # verified again, after a kernel restart
    (_A, LeaseTransition.SUSPEND): _S,
    (_S, LeaseTransition.RESUME): _A,
    # Its kernel was restarted and verified before its state has come back.
    (_S, LeaseTransition.ACTIVATE): _S,
    (_G, LeaseTransition.RELEASE): _R,
    (_A, LeaseTransition.RELEASE): _R,
    (_S, LeaseTransition.RELEASE): _R,
    (_R, LeaseTransition.RELEASE): _R,  # releasing twice is releasing once
    (_R, LeaseTransition.FINISH): _E,
    **{(state, step): _E for state in (_G, _A, _S, _R) for step in _SUDDEN},
}

LIVE_STATES = frozenset({_G, _A, _S, _R})


class NoticeKind(StrEnum):
    """Why a lease will end."""

    PREEMPT = "preempt"  # a request with higher priority needs the capacity
    IDLE = "idle"  # it is not used


@dataclass(frozen=True, kw_only=True)
class Notice:
    """The notice that a lease will end.

    Attributes:
        kind: why.
        at: when it was given, in seconds since the epoch.
        ends_at: when the lease ends, unless the notice is withdrawn.
        request_id: the request that needs the capacity; empty for an idle lease.
    """

    kind: NoticeKind
    at: float
    ends_at: float
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The time-bounded right of one holder to certain slices.

    Attributes:
        id: unique, opaque.
        token: fencing number, never used twice in a ledger; a stale one may change
            nothing.
        request_id: the request it answers.
        spec: what was asked for.
        holder: who uses it.
        slices: what was granted.
        queue: the queue it is charged to.
        state: where it stands.
        granted_at: seconds since the epoch.
        expires_at: until when it was last renewed. That time alone ends no lease: after
            it a lease ends if its holder cannot be seen to live.
        ends_at: when it ends however often it is renewed, as its user asked; None for
            no such end.
        preemptible: may be ended for others.
        up_to: the share of each of its devices that it may use while nobody else needs
            it; None for what was granted.
        limits: what it may use of each slice now; empty for what was granted.
        enforced_by: what holds it to its size, known once prepared.
        verified: True when checked from inside and found as granted, False when found
            otherwise, None before.
        conditions: what the user should know, at most one of each kind, the gravest
            first.
        active_at: when it was last seen in use (a cell ran, or its device worked); None
            when that is not observed.
        notice: the notice that it will end; None for none.
        residence: where its device state is, where its holder may be suspended; None
            elsewhere.
        outcome, ended_at: how and when it ended; None while it lives.
    """

    id: str
    token: int
    request_id: str
    spec: Spec
    holder: Holder
    slices: tuple[Slice, ...]
    queue: str = "default"
    state: LeaseState = LeaseState.GRANTED
    granted_at: float
    expires_at: float
    ends_at: float | None = None
    preemptible: bool = False
    up_to: Fraction | None = None
    limits: Limits = ()
    enforced_by: Enforcement | None = None
    verified: bool | None = None
    conditions: Conditions = ()
    active_at: float | None = None
    notice: Notice | None = None
    residence: DeviceState | None = None
    outcome: Outcome | None = None
    ended_at: float | None = None

    @property
    def is_live(self) -> bool:
        """Whether it still holds its slices."""
        return self.state in LIVE_STATES

    @property
    def is_away(self) -> bool:
        """Whether it is suspended, and takes no capacity of its GPUs."""
        return self.residence is not None and self.residence.is_away

    @property
    def occupied(self) -> tuple[Slice, ...]:
        """Its slices that take capacity: all of them, and for a suspended lease only those
        of the CPU.

        The capacity of a lease that waits to be resumed is taken: it is promised to it.
        """
        if not self.is_away:
            return self.slices
        return tuple(slice_ for slice_ in self.slices if slice_.kind is SliceKind.CPU)

    @property
    def effective_slices(self) -> tuple[Slice, ...]:
        """Its slices, each as large as it may be used now."""
        if not self.limits:
            return self.slices
        return tuple(limited(slice_, self.limits) for slice_ in self.slices)

    def tolerated_bytes(self, slice_: Slice, now: float) -> int:
        """Bytes that its processes may hold of a slice: what they may use, and for a
        while what they might before that was lowered.
        """
        for limit in self.limits:
            if limit.device_id == slice_.device_id:
                return limit.tolerated_bytes(now)
        return slice_.memory_bytes

    @property
    def elastic_slices(self) -> tuple[Slice, ...]:
        """Its slices that have a ceiling: shares of GPUs, or where it has none, of the
        CPU. What it has of the host beside a GPU has none.
        """
        if self.up_to is None:
            return ()
        shares = [each for each in self.slices if each.kind is SliceKind.SHARE]
        has_gpu = any(each.kind is not SliceKind.CPU for each in self.slices)
        return tuple(shares) if has_gpu else self.slices

    @property
    def enforcement(self) -> str:
        """What enforces it, in words; empty before it is prepared."""
        if self.enforced_by:
            return self.enforced_by.label
        return ""

    def condition(self, kind: ConditionKind) -> Condition | None:
        """Its condition of a kind; None where it has none."""
        return condition_of(self.conditions, kind)

    def used_since(self, now: float) -> float:
        """Since when it would have been in use had it been so without a break until
        `now`; seconds since the epoch.

        While it is suspended and not wanted back, others have its capacity.
        """
        home = self.residence
        if home is None:
            return self.granted_at
        away = home.away_seconds
        if home.away_at is not None:
            away += max(0.0, now - home.away_at)
        return min(max(now, self.granted_at), self.granted_at + away)

    def is_expired(self, now: float) -> bool:
        """Whether it is live but past the end that its user asked for."""
        return self.is_live and self.ends_at is not None and now >= self.ends_at

    def is_renewed(self, now: float) -> bool:
        """Whether its last renewal still holds."""
        return now < self.expires_at


def advance(lease: Lease, step: LeaseTransition, now: float) -> Lease:
    """The lease after `step`, at time `now` (seconds since the epoch).

    Raises:
        InvalidTransition: when its state does not allow the step; the lease stays as it
            was.
    """
    after = TRANSITIONS.get((lease.state, step))
    if after is None:
        raise InvalidTransition(
            f"a lease that is {lease.state.value} cannot {step.value}",
            lease_id=lease.id,
            state=lease.state.value,
            step=step.value,
        )
    if after is LeaseState.ENDED:
        return replace(lease, state=after, outcome=_ENDINGS[step], ended_at=now)
    return replace(lease, state=after)
