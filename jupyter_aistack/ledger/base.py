"""The ledger port: the durable record of requests, leases, accounts, reservations,
charges and events. It is their only writer.

A ledger knows no devices and makes no choices. It promises four things: what it returns
has been written; a write guarded by a stale token or version changes nothing; no
transaction ever sees a lease alive past the end its user asked for, because every
transaction first ends the leases that are; and a lease that ends, however it does, is
charged to the account of its user and queue in the same transaction.

A lease that is merely not renewed is ended by a plan alone: its holder may live, and only
a broker of its host can see that.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    MeterState,
    UsageRecord,
    UsageSummary,
)
from jupyter_aistack.core.model.condition import Condition, ConditionUpdate
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.device_state import DeviceState
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.lease import Lease, LeaseTransition
from jupyter_aistack.core.model.plan import Plan
from jupyter_aistack.core.model.policy import WEEK_SECONDS
from jupyter_aistack.core.model.process import Liveness, ProcessIdentity
from jupyter_aistack.core.model.request import Holder, Request
from jupyter_aistack.core.model.reservation import Reservation

from .changes import Change, Written
from .history import History
from .host_base import HostLedger
from .state import LedgerState


class Ledger(HostLedger, History):
    """Where leases are written down. Safe to use from several threads and, but for
    memory, processes.

    Every method may raise `LedgerUnavailable`. Times are seconds since the epoch.

    Attributes:
        half_life_seconds: use this long ago counts half in the accounts.
    """

    half_life_seconds: float = WEEK_SECONDS

    @abstractmethod
    def read(self, host: str, now: float) -> LedgerState:
        """What a plan for `host` is made from. Called by the broker at the start of
        each cycle.
        """

    def recall(self, host: str, now: float) -> LedgerState:
        """As `read`, where what was read or written here last does as well: others may
        have written since, which `write` tells.
        """
        return self.read(host, now)

    @abstractmethod
    def write(self, changes: Sequence[Change], plan: Plan, now: float) -> Written:
        """Write changes down, in their order, and carry out a plan that was made for
        the ledger with them: all in one transaction.

        A change that is refused is answered with its error, and keeps no other from
        being written; so does a plan that was made for another ledger. What the plan
        says about a lease that has ended meanwhile is left out.

        Raises:
            LeaseNotFound, StaleToken: the plan names what is not there; nothing of it
                was carried out.
        """

    @abstractmethod
    def submit(self, request: Request) -> Request:
        """Write a new request down as queued. Submitting the same id, or the same key of
        the same user, twice returns the first request unchanged.
        """

    @abstractmethod
    def cancel(self, request_id: str, now: float, reason: str = "") -> Request:
        """Withdraw a queued request; a request already decided is returned as it stands.

        Raises:
            LeaseNotFound: no such request.
        """

    @abstractmethod
    def rebind(self, request_id: str, now: float, holder: Holder) -> Request:
        """Put a queued request in another name: what people call its holder, or which
        devices may be granted to it. A request already decided is returned as it stands.

        Raises:
            LeaseNotFound: no such request.
        """

    @abstractmethod
    def request_of_key(self, user: str, key: str) -> Request | None:
        """The request that a user has submitted under an idempotency key, and that was
        not taken back; None for none.
        """

    @abstractmethod
    def apply(self, plan: Plan, now: float) -> tuple[Event, ...]:
        """Carry out a plan, whole or not at all, and return what happened, without its
        place in the history.

        A granted request gets a lease with a fresh token. What the plan says about a
        lease that has ended meanwhile is left out.

        Raises:
            LedgerConflict: the ledger has moved on since `plan.version`, or a lease
                that was to end or to be noticed has been renewed, extended or used
                since; nothing was changed.
            LeaseNotFound, StaleToken: it names what is not there; nothing was changed.
        """

    @abstractmethod
    def step(
        self,
        lease_id: str,
        token: int,
        step: LeaseTransition,
        now: float,
        *,
        conditions: ConditionUpdate | None = None,
        **changes: object,
    ) -> Lease:
        """Advance a lease, change its conditions, and replace fields named in `changes`
        (``holder``, ``enforced_by``, ``verified``).

        Raises:
            LeaseNotFound: no such lease.
            StaleToken: `token` is not the lease's.
            LeaseLost: the lease has ended; releasing what was released is no error.
            InvalidTransition: the step is not in the table.
        """

    @abstractmethod
    def renew(self, lease_id: str, token: int, now: float, expires_at: float) -> Lease:
        """Move a live lease's `expires_at`, never beyond its `ends_at`. Where that was
        over, its notice runs on for as long as nobody renewed it. Raises as `step`
        does.
        """

    @abstractmethod
    def extend(
        self,
        lease_id: str,
        token: int,
        now: float,
        ends_at: float | None,
        *,
        expires_at: float | None = None,
    ) -> Lease:
        """Move a live lease's `ends_at`, and with `expires_at` renew it as well. Raises
        as `step` does.
        """

    @abstractmethod
    def bind(
        self,
        lease_id: str,
        token: int,
        now: float,
        *,
        conditions: ConditionUpdate | None = None,
        **changes: object,
    ) -> Lease:
        """Change a live lease without a step: its conditions, and the fields named in
        `changes` (``holder``, ``enforced_by``, ``active_at``, ``notice``). Raises as
        `step` does.
        """

    @abstractmethod
    def remark(
        self,
        lease_id: str,
        token: int,
        now: float,
        kind: EventKind,
        detail: str,
        *,
        conditions: ConditionUpdate | None = None,
    ) -> Lease:
        """Write down something that has happened to a live lease, and change its
        conditions; raises as `step` does.
        """

    @abstractmethod
    def update_device_state(
        self,
        lease_id: str,
        token: int,
        now: float,
        change: Callable[[DeviceState], DeviceState],
    ) -> Lease:
        """Replace a live lease's residence by what `change` makes of it, with no other
        write in between.

        A lease whose state has left its device becomes suspended, a lease whose state
        is back active; that and its loss are events. A lease that has no residence, or
        on which `change` has no effect, stays as it is.

        Args:
            change: a step of :mod:`..core.residence`; what it raises is raised here,
                and nothing was changed.

        Raises:
            LeaseNotFound, StaleToken, LeaseLost: as `step` does.
        """

    @abstractmethod
    def touch(self, lease_ids: Iterable[str], now: float) -> None:
        """Note that leases are in use: `active_at` moves to `now`, never back; a notice
        for being idle is withdrawn.

        Those that have ended, or never were, are passed over. Called about once a
        minute for what is in use.
        """

    @abstractmethod
    def reserve(self, reservation: Reservation, now: float) -> Reservation:
        """Write a reservation down. Reserving the same id twice returns the first
        reservation unchanged.

        Whether the host can hold it is for the caller to check.
        """

    @abstractmethod
    def unreserve(self, reservation_id: str, now: float) -> Reservation:
        """Cancel a reservation and return it. Raises `LeaseNotFound`."""

    @abstractmethod
    def meters(self, host: str) -> tuple[MeterState, ...]:
        """How far the counters of a host's devices have been charged."""

    @abstractmethod
    def settle(self, bill: UsageSummary) -> None:
        """Write down what was used: move the meters and add the charges, whole or not
        at all.

        Raises:
            LedgerConflict: a meter is not as the bill says it was: another process has
                charged that time.
        """

    @abstractmethod
    def charges(
        self,
        since: int,
        until: int,
        *,
        user: str | None = None,
        label: str | None = None,
        owner: str | None = None,
    ) -> tuple[UsageRecord, ...]:
        """The charges of the days from `since` to `until`, both included, in the order
        of their keys.

        Args:
            user, label, owner: only those of this user, notebook or kernel.
        """

    @abstractmethod
    def aggregate_cells(self, before: int, limit: int = 1000) -> int:
        """Add the charges of cells before that day to the charges of their leases; how
        many there were, at most `limit`.

        No sum changes; the peaks of a lease's cells become the lease's.
        """

    @abstractmethod
    def record_cells(self, spans: Iterable[CellInterval]) -> None:
        """Note when cells ran. A span noted again (of a cell that runs, when it has
        ended) replaces the first.
        """

    @abstractmethod
    def cells(self, host: str, since: float) -> tuple[CellInterval, ...]:
        """The cells of a host that ran after `since`, or still run, the first to begin
        first.
        """

    @abstractmethod
    def delete_cells(self, host: str, before: float) -> None:
        """Drop the spans of cells that ended before that time, and of those that never
        reported their end.
        """

    @abstractmethod
    def lease(self, lease_id: str, now: float) -> Lease:
        """A lease, live or ended. Raises `LeaseNotFound`."""

    @abstractmethod
    def request(self, request_id: str) -> Request:
        """A request. Raises `LeaseNotFound`."""

    @abstractmethod
    def leases(
        self,
        now: float,
        *,
        host: str | None = None,
        live: bool = True,
        limit: int = 1000,
    ) -> tuple[Lease, ...]:
        """Leases, newest first; the live leases, or with ``live=False`` all of them."""

    @abstractmethod
    def waiting(self) -> tuple[Request, ...]:
        """The queued requests of all hosts, in the order they came."""

    # -- devices -----------------------------------------------------------------------

    @abstractmethod
    def device_faults(self, host: str) -> tuple[DeviceFault, ...]:
        """Why devices of a host are out of placement, in any order."""

    @abstractmethod
    def record_device_faults(
        self,
        host: str,
        device_id: str,
        faults: Iterable[DeviceFault],
        now: float,
        told: Condition,
    ) -> None:
        """Write down why a device is out of placement, beside what is written of it, and
        tell those who hold a part of it: once, however many brokers see the device and
        whatever else is found out about it. Each kind of fault is an event once.
        """

    @abstractmethod
    def clear_device_faults(
        self, host: str, device_id: str, now: float, detail: str
    ) -> bool:
        """A device has recovered: forget its faults, and that its leases were told
        unless another device of theirs has faults. Whether it had any: an event.
        """

    # -- who lives ---------------------------------------------------------------------

    @abstractmethod
    def hold_presence(self, process: ProcessIdentity) -> None:
        """Show all who share the ledger that this process lives, until it ends or the
        ledger is closed; stopped, it still does. Holding twice is holding once.

        Args:
            process: this process.
        """

    @abstractmethod
    def presence(self, process: ProcessIdentity) -> Liveness:
        """Whether a process of any PID namespace lives; unknown unless it has shown it."""

    @abstractmethod
    def has_witness(self, process: ProcessIdentity) -> bool:
        """Whether a process lives on this ledger that sees `process`: of the same
        machine and PID namespace. It is for that one to say when `process` has ended.
        """

    def problems(self) -> tuple[str, ...]:
        """What is wrong with it and does not stop it, one sentence each."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections. Closing twice is allowed."""
