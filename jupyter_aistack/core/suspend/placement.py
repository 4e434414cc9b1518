"""Where a request may be placed beside kernels that are suspended, or may be, so that
they can all be resumed.
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
from jupyter_aistack.core.placement.placement import Capacity
from jupyter_aistack.core.placement.tenants import EXCLUDED
from jupyter_aistack.core.placement.verdict import PlacementFailure, PlacementVerdict

from .build import candidate_for, residence_for
from .feasibility import TransferStep, lacks_memory, why_not_admitted
from .model import HostMemory, SuspendCandidate
from .transfers import TransferPlan


class ResumePlacement:
    """Places requests where suspended kernels can still be resumed.

    Args:
        snapshot: what there is.
        transfers: the kernels on the host, and what has begun to move; None where
            nothing has to do with suspension, and any place will do.
        now: seconds since the epoch.
    """

    def __init__(
        self, snapshot: Snapshot, transfers: TransferPlan | None, now: float
    ) -> None:
        self._snapshot = snapshot
        self._transfers = transfers
        self._now = now

    def residence(
        self, request: Request, slices: Iterable[Slice]
    ) -> DeviceState | None:
        """The device state of a new lease, if its holder may be suspended."""
        return residence_for(request, slices, self._snapshot, self._now)

    def add(self, request: Request, slices: Sequence[Slice]) -> None:
        """A request is granted. It stays until its server has checked whether it can be
        suspended.
        """
        if self._transfers is None:
            return
        residence = self.residence(request, slices)
        new = candidate_for(request, slices, residence, self._transfers.host)
        if new is not None:
            self._transfers.add(replace(new, pinned=new.pinned or NOT_CHECKED))

    def place(
        self, capacity: Capacity, request: Request, kept: Mapping[str, Fraction]
    ) -> PlacementVerdict:
        """Slices in `capacity` beside what is `kept` for others, to be had now; or why
        not.
        """
        host = None if self._transfers is None else self._transfers.host
        return self._place(host, capacity, request, kept, is_now=True)

    def place_later(
        self,
        capacity: Capacity,
        request: Request,
        kept: Mapping[str, Fraction],
        *,
        ended: Collection[str],
        suspended: Iterable[SuspendCandidate],
    ) -> PlacementVerdict:
        """The same in capacity to come, once the leases `ended` have, and these are
        suspended.
        """
        host = None
        if self._transfers is not None:
            host = self._transfers.after(ended, suspended)
        return self._place(host, capacity, request, kept, is_now=False)

    def _place(
        self,
        host: HostMemory | None,
        capacity: Capacity,
        request: Request,
        kept: Mapping[str, Fraction],
        *,
        is_now: bool,
    ) -> PlacementVerdict:
        """A place where those that are suspended can still be resumed.

        Args:
            is_now: the memory must be free now, and not only by what has been granted.
        """
        why = ""
        while True:
            holder = request.holder
            verdict = capacity.place(
                request.spec, host=holder.host, kept=kept, user=holder.user
            )
            if isinstance(verdict, PlacementFailure):
                return PlacementFailure(reason=why) if why else verdict
            if host is None:
                return verdict
            refused = self._refused(host, request, verdict, is_now)
            if not refused:
                return verdict
            # Try again without the devices that would leave others no way back.
            why = why or next(iter(refused.values()))
            kept = {**kept, **dict.fromkeys(refused, EXCLUDED)}

    def _refused(
        self, host: HostMemory, request: Request, slices: Sequence[Slice], is_now: bool
    ) -> dict[str, str]:
        """The devices of `slices` that cannot be had because of suspended kernels, and
        why in a sentence.
        """
        new = candidate_for(request, slices, self.residence(request, slices), host)
        if new is None:
            return {}
        refused = {}
        for device_id in new.devices:
            alone = replace(new, devices=(device_id,))
            why = why_not_admitted(host, alone)
            if not why and is_now:
                why = lacks_memory(host, alone)
            if why:
                refused[device_id] = why
        return refused


def with_transfers(
    transfers: Iterable[TransferAction], leases: Sequence[Lease]
) -> list[Lease]:
    """The leases once these transfers have begun."""
    directions = {transfer.lease_id: transfer.direction for transfer in transfers}
    if not directions:
        return list(leases)
    return [
        _moved(lease, directions[lease.id]) if lease.id in directions else lease
        for lease in leases
    ]


def _moved(lease: Lease, direction: TransferDirection) -> Lease:
    assert lease.residence is not None  # others are not moved
    begin = begin_resume
    if direction is TransferDirection.SUSPEND:
        begin = begin_suspend
    return replace(lease, residence=begin(lease.residence))


def transfer_actions(
    steps: Iterable[TransferStep], held: Iterable[Lease]
) -> Iterator[TransferAction]:
    """The actions of transfers that begin."""
    tokens = {lease.id: lease.token for lease in held if lease.residence is not None}
    for step in steps:
        yield TransferAction(
            lease_id=step.lease_id,
            token=tokens[step.lease_id],
            direction=step.direction,
        )
