"""What a ledger keeps of reservations."""

from __future__ import annotations

from jupyter_aistack.core.audit.changes import reservation_text
from jupyter_aistack.core.model.events import Event, EventKind
from jupyter_aistack.core.model.reservation import Reservation

from .rows import find_reservation
from .transactions import Transactions


class ReservationTransactions(Transactions):
    """The part of the port that keeps reservations."""

    def reserve(self, reservation: Reservation, now: float) -> Reservation:
        with self._changing(now) as rows:
            known = rows.reservation(reservation.id)
            if known is not None:
                return known
            rows.add_reservation(reservation)
            rows.version += 1
            rows.append(
                Event(
                    kind=EventKind.RESERVATION_MADE,
                    at=now,
                    detail=reservation.name,
                    after=reservation_text(reservation),
                )
            )
            return reservation

    def unreserve(self, reservation_id: str, now: float) -> Reservation:
        with self._changing(now) as rows:
            reservation = find_reservation(rows, reservation_id)
            rows.remove_reservation(reservation_id)
            rows.version += 1
            rows.append(
                Event(
                    kind=EventKind.RESERVATION_CANCELLED,
                    at=now,
                    detail=reservation.name,
                    before=reservation_text(reservation),
                )
            )
            return reservation
