"""What a cycle of the broker is made from, and what it comes to: snapshots, actions and
plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from jupyter_aistack.exceptions import Refused

from .condition import Conditions
from .device import Inventory, Slice
from .device_state import DeviceState
from .lease import Lease, LeaseState, Notice, Outcome
from .limit import Limits
from .policy import Policy, SuspendPolicy
from .request import Request
from .reservation import Reservation
from .usage_history import Account


class TransferDirection(StrEnum):
    """What may be done to the state of a lease."""

    SUSPEND = "suspend"
    RESUME = "resume"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Give a waiting request these slices.

    `conditions` are what its holder should know; `residence` is for a holder who may
    be suspended; `limits` are what it may use at once, where it has a ceiling.
    """

    request: Request
    slices: tuple[Slice, ...]
    expires_at: float
    ends_at: float | None = None
    conditions: Conditions = ()
    residence: DeviceState | None = None
    limits: Limits = ()


@dataclass(frozen=True, kw_only=True)
class Notify:
    """Tell the holder of a lease that it will end."""

    lease_id: str
    token: int
    notice: Notice
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class WithdrawNotice:
    """Withdraw a notice: the lease will not end."""

    lease_id: str
    token: int
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class End:
    """End a live lease with an outcome (expired, abandoned, lapsed, preempted,
    reclaimed; released where its release was begun).
    """

    lease_id: str
    token: int
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """Reject a waiting request; `code` names the error that this means for its user."""

    request_id: str
    reason: str
    code: str = Refused.__name__


@dataclass(frozen=True, kw_only=True)
class TransferAction:
    """Begin to move the device state of a lease out, or back in with its bytes
    reserved.
    """

    lease_id: str
    token: int
    direction: TransferDirection


@dataclass(frozen=True, kw_only=True)
class SetLimits:
    """Let the holder of a lease with a ceiling use more or less than before."""

    lease_id: str
    token: int
    limits: Limits


Action = Grant | Notify | WithdrawNotice | End | Reject | TransferAction | SetLimits


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a plan is made from, read together.

    Attributes:
        inventory: the devices, foreign memory marked.
        leases: the live leases on them.
        requests: the queued requests, in the order they came.
        policy: how slices are shared out.
        accounts: what users have used.
        reservations: devices kept for certain hours.
        version: of the ledger it was read from.
        dead: ids of leases and requests whose holder no longer runs.
        unvouched: ids of leases whose holder cannot be seen from here, and that nobody
            has renewed though there was time to.
        suspend: when idle kernels are suspended; None where none may be.
        host_bytes: most of the host's memory that suspended state may take, all
            together.
        elsewhere: the live leases of other hosts, which count against the limits and
            the fair shares of their users.
        queued_elsewhere: how many requests of each user wait on other hosts.
    """

    inventory: Inventory
    leases: tuple[Lease, ...] = ()
    requests: tuple[Request, ...] = ()
    policy: Policy = field(default_factory=Policy)
    accounts: tuple[Account, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    version: int = 0
    dead: frozenset[str] = frozenset()
    unvouched: frozenset[str] = frozenset()
    suspend: SuspendPolicy | None = None
    host_bytes: int = 0
    elsewhere: tuple[Lease, ...] = ()
    queued_elsewhere: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Actions to be applied together.

    Attributes:
        version: the ledger's version it holds for.
        actions: what to do, in order.
    """

    version: int
    actions: tuple[Action, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.actions

    def rejections(self) -> tuple[Reject, ...]:
        """The requests it rejects."""
        return tuple(action for action in self.actions if isinstance(action, Reject))

    def ended(self) -> frozenset[str]:
        """Ids of the leases it ends."""
        return frozenset(
            action.lease_id for action in self.actions if isinstance(action, End)
        )


def grant_to_lease(grant: Grant, lease_id: str, token: int, now: float) -> Lease:
    """The lease a grant becomes when it is written down."""
    request = grant.request
    return Lease(
        id=lease_id,
        token=token,
        request_id=request.id,
        spec=request.spec,
        holder=request.holder,
        slices=grant.slices,
        queue=request.queue,
        state=LeaseState.GRANTED,
        granted_at=now,
        expires_at=grant.expires_at,
        ends_at=grant.ends_at,
        preemptible=request.preemptible,
        up_to=request.up_to,
        limits=grant.limits,
        conditions=grant.conditions,
        residence=grant.residence,
    )
