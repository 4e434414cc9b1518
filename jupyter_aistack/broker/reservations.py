"""Slices that are kept for the members of a queue between two moments."""

from __future__ import annotations

import uuid

from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import Spec, parse_spec
from jupyter_aistack.core.scheduling.reservations import conflict
from jupyter_aistack.exceptions import Refused, UnknownQueue

from .cycle import SchedulingCycle
from .host_state import HostState
from .withdrawals import Withdrawals


class Reservations:
    """The reservations of this host.

    Args:
        host_state: where they are written down, and what they must fit into.
        cycle: run when a reservation is withdrawn.
        withdrawals: takes back what its admin was not told of.
    """

    def __init__(
        self,
        host_state: HostState,
        cycle: SchedulingCycle,
        withdrawals: Withdrawals,
    ) -> None:
        self._host_state = host_state
        self._cycle = cycle
        self._withdrawals = withdrawals

    def current(self) -> tuple[Reservation, ...]:
        """The reservations that are running or to come."""
        return self._host_state.read().reservations

    def reserve(
        self,
        *,
        name: str,
        queue: str,
        spec: str | Spec,
        count: int,
        starts_at: float,
        ends_at: float,
        is_weekly: bool = False,
        created_by: str = "",
    ) -> Reservation:
        """Keep `count` slices for the members of a queue between two moments.

        Raises:
            InvalidRequest, UnknownQueue: a field makes no sense; it is named.
            Refused: the host cannot hold it beside the other reservations, not even
                when idle.
        """
        self._check_queue(queue)
        reservation = Reservation(
            id=f"v-{uuid.uuid4().hex[:12]}",
            name=name,
            queue=queue,
            spec=parse_spec(spec) if isinstance(spec, str) else spec,
            count=count,
            starts_at=starts_at,
            ends_at=ends_at,
            is_weekly=is_weekly,
            created_by=created_by,
            host=self._host_state.host,
        )
        reservation.check(self._host_state.now())

        why = conflict(reservation, self.current(), self._host_state.inventory())
        if why:
            raise Refused(why)
        try:
            return self._host_state.ledger.reserve(reservation, self._host_state.now())
        except BaseException:
            # It may have been written: its admin does not know its id.
            self._withdrawals.unreserve(reservation.id)
            raise

    def unreserve(self, reservation_id: str) -> Reservation:
        """Withdraw a reservation, and grant what has waited for its slices. Raises
        `LeaseNotFound`.
        """
        reservation = self._host_state.ledger.unreserve(
            reservation_id, self._host_state.now()
        )
        self._cycle.follow_up()
        return reservation

    def _check_queue(self, queue: str) -> None:
        policy = self._host_state.policy
        if policy.queue(queue) is not None:
            return
        names = ", ".join(queue.name for queue in policy.queues)
        raise UnknownQueue(
            f"queue: there is no queue {queue!r}; there is {names}", field="queue"
        )
