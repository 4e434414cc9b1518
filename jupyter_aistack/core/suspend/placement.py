"""Where a request may move in beside kernels that are suspended, or may be: their way
back stays open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.core.model.device_state import (
    NOT_CHECKED,
    DeviceState,
    begin_resume,
    begin_suspend,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Snapshot, TransferAction, TransferDirection
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.placement.placement import Capacity, PlacementFailure

from .build import candidate_for, residence_for
from .feasibility import TransferStep, lacks_memory, why_not_admitted
from .model import HostMemory, SuspendCandidate
from .transfers import TransferPlan

PlacementVerdict = tuple[Slice, ...] | PlacementFailure
SHUT = Fraction(2)
"""More than there is of a device: kept for others, nothing of it can be had."""


class ResumePlacement:
    """The house of one plan, for those who would move in.

    Args:
        snapshot: what there is.
        moves: who is there, and what has begun; None where nobody has to do with
            suspension, and any room will do.
        now: seconds since the epoch.
    """

    def __init__(
        self, snapshot: Snapshot, moves: TransferPlan | None, now: float
    ) -> None:
        self.snapshot = snapshot
        self.moves = moves
        self.now = now

    def residence(
        self, request: Request, slices: Iterable[Slice]
    ) -> DeviceState | None:
        """Where the state of a new lease is, if its holder may be suspended."""
        return residence_for(request, slices, self.snapshot, self.now)

    def settle(self, request: Request, slices: Sequence[Slice]) -> None:
        """Somebody moves in, and stays until its server has looked whether it can be
        suspended.
        """
        if self.moves is not None:
            new = candidate_for(
                request, slices, self.residence(request, slices), self.moves.house
            )
            if new is not None:
                self.moves.add(replace(new, pinned=new.pinned or NOT_CHECKED))

    def place(
        self, room: Capacity, request: Request, kept: Mapping[str, Fraction]
    ) -> PlacementVerdict:
        """Slices in `room` beside what is `kept` for others, to be had now; or why
        not.
        """
        return self._place(
            self.moves.house if self.moves is not None else None,
            room,
            request,
            kept,
            is_now=True,
        )

    def place_later(
        self,
        room: Capacity,
        request: Request,
        kept: Mapping[str, Fraction],
        *,
        ended: Collection[str],
        parked: Iterable[SuspendCandidate],
    ) -> PlacementVerdict:
        """The same in room to come, once the leases `ended` have, and these are
        parked.
        """
        house = self.moves.after(ended, parked) if self.moves is not None else None
        return self._place(house, room, request, kept, is_now=False)

    def _place(
        self,
        house: HostMemory | None,
        room: Capacity,
        request: Request,
        kept: Mapping[str, Fraction],
        *,
        is_now: bool,
    ) -> PlacementVerdict:
        """A place where those who are suspended can still come back to their devices.

        Args:
            is_now: the memory must be free now, and not only by what has been granted.
        """
        why = ""
        while True:
            verdict = room.place(request.spec, host=request.holder.host, kept=kept)
            if isinstance(verdict, PlacementFailure):
                return PlacementFailure(reason=why) if why else verdict
            refused = (
                {} if house is None else self._refused(house, request, verdict, is_now)
            )
            if not refused:
                return verdict
            why = why or next(iter(refused.values()))
            kept = {**kept, **dict.fromkeys(refused, SHUT)}

    def _refused(
        self, house: HostMemory, request: Request, slices: Sequence[Slice], is_now: bool
    ) -> dict[str, str]:
        """The devices of `slices` that cannot be had because of suspended tenants, and
        why in a sentence.
        """
        new = candidate_for(request, slices, self.residence(request, slices), house)
        found: dict[str, str] = {}
        for alone in (
            [replace(new, devices=(device,)) for device in new.devices]
            if new is not None
            else []
        ):
            (device,) = alone.devices
            found[device] = why_not_admitted(house, alone) or (
                lacks_memory(house, alone) if is_now else ""
            )
        return {device: why for device, why in found.items() if why}


def after_moves(
    moves: Iterable[TransferAction], leases: Sequence[Lease]
) -> list[Lease]:
    """The leases once these have begun."""
    acts = {move.lease_id: move.act for move in moves}
    return (
        [
            _moved(lease, acts[lease.id]) if lease.id in acts else lease
            for lease in leases
        ]
        if acts
        else list(leases)
    )


def _moved(lease: Lease, act: TransferDirection) -> Lease:
    assert lease.residence is not None  # others are not moved
    return replace(
        lease,
        residence=(begin_suspend if act is TransferDirection.SUSPEND else begin_resume)(
            lease.residence
        ),
    )


def begun(
    operations: Iterable[TransferStep], held: Iterable[Lease]
) -> Iterator[TransferAction]:
    """The actions of moves that begin."""
    tokens = {lease.id: lease.token for lease in held if lease.residence is not None}
    return (
        TransferAction(lease_id=one.lease_id, token=tokens[one.lease_id], act=one.act)
        for one in operations
    )
