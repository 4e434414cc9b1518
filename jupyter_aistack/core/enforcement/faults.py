"""What the holder of a lease reads when its GPU failed for all who share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jupyter_aistack.core.model.device import Fault
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder

FAULTED = "on a GPU that failed:"
"""How the sentence begins."""


def fault_note(
    fault: Fault,
    lease: Lease,
    culprit: Holder | None,
    program: str,
    *,
    show_names: bool,
) -> str:
    """One sentence for the holder of `lease`: who caused it, as far as that is known
    and may be said, and what to do.

    Args:
        culprit: the holder whose process caused it; None for a stranger, or when it is
            not known.
        program: what that process runs; empty when it is gone.
        show_names: whether users see the names of others.
    """
    if fault.pid is None:  # nobody may have: a daemon was killed, a folder removed
        return f"{FAULTED} {fault.message or 'it cannot be told which process caused it'}; restart the kernel"
    why = f" ({fault.message})" if fault.message else ""
    who = _who(fault, lease, culprit, program, show_names=show_names)
    return f"{FAULTED} {who} caused it{why}; restart the kernel, nothing more runs there until all have ended"


def _who(
    fault: Fault,
    lease: Lease,
    culprit: Holder | None,
    program: str,
    *,
    show_names: bool,
) -> str:
    process = f"{program or 'process'} {fault.pid}"
    if culprit is None:
        return f"{process}, which has no lease,"
    if culprit.user == lease.holder.user:
        return f"{process} of {culprit.label or culprit.id}"
    return (
        f"{process} of {culprit.user}: {culprit.label or culprit.id}"
        if show_names
        else f"{process} of somebody else"
    )


def affected(fault: Fault, leases: Iterable[Lease]) -> list[Lease]:
    """The leases on the device that have not been told: a note of this kind stays until
    the kernel is checked anew.

    What breaks is a server; a lease that is known to be held another way has none, and
    goes on.
    """
    on_it = (
        lease
        for lease in leases
        if any(piece.device_id == fault.device_id for piece in lease.slices)
    )
    shared = (
        lease
        for lease in on_it
        if lease.enforced_by is None or lease.enforced_by.is_by_mps
    )
    return [lease for lease in shared if not lease.note.startswith(FAULTED)]


def culprit_of(
    fault: Fault, leases: Iterable[Lease], pids: Mapping[str, frozenset[int]]
) -> Holder | None:
    """Whose process caused it, by each lease's processes; None when it is nobody's
    here.
    """
    return next(
        (
            lease.holder
            for lease in leases
            if fault.pid in pids.get(lease.id, frozenset())
        ),
        None,
    )
