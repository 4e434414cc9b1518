"""The ledger port: the durable record of requests, leases and events, and their only writer.

A ledger knows no devices and makes no choices. It promises three things: what it returns has been
written; a write guarded by a stale token or version changes nothing; and no transaction ever sees
a lease alive past its time, because every one of them first ends those that are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..core.events import Event
from ..core.lease import Lease, Step
from ..core.plan import Plan
from ..core.request import Request


@dataclass(frozen=True, kw_only=True)
class LedgerState:
    """What a plan is made from, read in one transaction.

    Attributes:
        version: changes whenever leases or requests come, go or change hands; renewals leave it alone.
        leases: the live leases of the host asked for.
        requests: its queued requests.
    """

    version: int
    leases: tuple[Lease, ...]
    requests: tuple[Request, ...]


class Ledger(ABC):
    """Where leases are written down. Safe to use from several threads and, but for memory, processes.

    Every method may raise `LedgerUnavailable`. Times are seconds since the epoch.
    """

    @abstractmethod
    def read(self, host: str, now: float) -> LedgerState:
        """Live leases and queued requests of `host`. Called by the broker at the start of each cycle."""

    @abstractmethod
    def submit(self, request: Request) -> Request:
        """Write a new request down as queued. Submitting the same id twice returns the first one unchanged."""

    @abstractmethod
    def cancel(self, request_id: str, now: float, reason: str = "") -> Request:
        """Take a queued request back; one already decided is returned as it stands.

        Raises:
            LeaseNotFound: no such request.
        """

    @abstractmethod
    def apply(self, plan: Plan, now: float) -> tuple[Event, ...]:
        """Carry out a plan, whole or not at all, and return what happened.

        A granted request gets a lease with a fresh token. Reasons in the plan are written to the waiting requests
        (that alone does not change the version).

        Raises:
            LedgerConflict: the ledger has moved on since `plan.version`; nothing was changed.
        """

    @abstractmethod
    def step(self, lease_id: str, token: int, step: Step, now: float, **changes: object) -> Lease:
        """Advance a lease, and replace fields named in `changes` (``holder``, ``enforced_by``, ``verified``, ``note``).

        Raises:
            LeaseNotFound: no such lease.
            StaleToken: `token` is not the lease's.
            LeaseLost: the lease has already ended in a way its holder did not ask for.
            InvalidTransition: the step is not in the table.
        """

    @abstractmethod
    def renew(self, lease_id: str, token: int, now: float, expires_at: float) -> Lease:
        """Move a live lease's `expires_at`, never beyond its `ends_at`. Raises as `step` does."""

    @abstractmethod
    def extend(self, lease_id: str, token: int, now: float, ends_at: float | None) -> Lease:
        """Move a live lease's `ends_at`. Raises as `step` does."""

    @abstractmethod
    def bind(self, lease_id: str, token: int, now: float, **changes: object) -> Lease:
        """Replace fields of a live lease (``holder``, ``enforced_by``, ``note``) without a step; raises as `step`."""

    @abstractmethod
    def lease(self, lease_id: str, now: float) -> Lease:
        """One lease, live or ended. Raises `LeaseNotFound`."""

    @abstractmethod
    def request(self, request_id: str) -> Request:
        """One request. Raises `LeaseNotFound`."""

    @abstractmethod
    def leases(self, now: float, *, host: str | None = None, live: bool = True, limit: int = 1000) -> tuple[Lease, ...]:
        """Leases, newest first; the live ones, or with ``live=False`` all of them."""

    @abstractmethod
    def events(self, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        """Events with a sequence above `after`, in order."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections. Closing twice is allowed."""
