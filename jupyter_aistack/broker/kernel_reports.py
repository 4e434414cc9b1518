"""Reports of Jupyter servers taken into account: what is left of kernels that have ended
is given back, use is noted, and notebooks are called by their names of now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from jupyter_aistack.core.model.kernel_report import KernelReport, Rename
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, Request
from jupyter_aistack.core.scheduling.activity import ActivitySample, to_touch
from jupyter_aistack.exceptions import LeaseError

from .broker import Broker

STALE_SECONDS = 30.0
"""Figures of use that are older say nothing about now."""


def take_report(broker: Broker, user: str, report: KernelReport) -> bool:
    """End what belongs to kernels that are gone, note what is in use, and follow renamed
    notebooks.

    Args:
        user: whose kernels these are: those of another user may be called alike.

    Returns:
        Whether anything is leased or waited for on this host.
    """
    state = broker.host_state.read()
    # Requests first: a lease that is released would go to the next request of the same
    # dead kernel.
    for request in state.requests:
        if _is_of(request, user, report.gone):
            broker.cancel(request.id)
    for lease in state.leases:
        if _is_of(lease, user, report.gone):
            with contextlib.suppress(LeaseError):  # it ended between the two calls
                broker.release(lease.id, lease.token)
    _touch(broker, user, state.leases, report)
    if report.renames:
        _relabel(broker, user, report.renames)
    return bool(state.leases or state.requests)


def _touch(
    broker: Broker, user: str, leases: Iterable[Lease], report: KernelReport
) -> None:
    """Note use before the holders of idle leases are notified: a lease must not be
    reclaimed in the moment it is used again.
    """
    if not report.running:
        return
    sample = ActivitySample(
        user=user,
        kernels=report.running,
        busy=report.busy,
        usage=broker.recent_usage(STALE_SECONDS),
    )
    used = to_touch(leases, sample, broker.host_state.policy, broker.clock())
    if used:
        broker.record_activity(used)


def _relabel(broker: Broker, user: str, renames: Mapping[str, Rename]) -> None:
    """Have leases and waiting requests that are called by a notebook's former name
    called by its name of now. A name that a user has chosen stays.
    """
    state = broker.host_state.read()
    ledger = broker.host_state.ledger
    for request in state.requests:
        holder = _renamed(request.holder, user, renames)
        if holder != request.holder:
            ledger.rebind(request.id, broker.clock(), holder)
    for lease in state.leases:
        holder = _renamed(lease.holder, user, renames)
        if holder == lease.holder or not lease.is_live:
            continue
        with contextlib.suppress(LeaseError):  # it ended between the two calls
            ledger.bind(lease.id, lease.token, broker.clock(), holder=holder)


def _renamed(holder: Holder, user: str, renames: Mapping[str, Rename]) -> Holder:
    """A holder by the name of now of the notebook that it belongs to."""
    kernel_id = holder.parent or holder.id
    rename = renames.get(kernel_id)
    if rename is None or not holder.belongs_to(user, kernel_id):
        return holder
    if holder.label not in rename.former:
        return holder
    return replace(holder, label=rename.label)


def _is_of(item: Lease | Request, user: str, gone: frozenset[str]) -> bool:
    return any(item.holder.ends_with(user, kernel_id) for kernel_id in gone)
