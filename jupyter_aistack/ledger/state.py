"""What a plan is made from, as a ledger holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.usage_history import Account


@dataclass(frozen=True, kw_only=True)
class LedgerState:
    """What a plan is made from, read in one transaction.

    Attributes:
        version: changes whenever leases, requests or reservations come or go, a lease
            changes hands, or a notice is given or withdrawn; renewals and use leave it
            alone.
        leases: the live leases of the host asked for.
        requests: its queued requests.
        accounts: what the ended leases of all users have used, on all hosts.
        reservations: those of the host that are running or have a window to come, the
            first to start first.
        drains: of the host's devices that are out of placement by hand; some may be
            over.
        elsewhere: the live leases of all other hosts.
        queued_elsewhere: how many requests of each user wait on other hosts.
    """

    version: int
    leases: tuple[Lease, ...]
    requests: tuple[Request, ...]
    accounts: tuple[Account, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    drains: tuple[Drain, ...] = ()
    elsewhere: tuple[Lease, ...] = ()
    queued_elsewhere: Mapping[str, int] = field(default_factory=dict)
