"""When a limit that was changed takes effect, and what the holder reads of it."""

from __future__ import annotations

from enum import StrEnum

from jupyter_aistack.core.model.ceiling import ceiling_text
from jupyter_aistack.core.model.condition import (
    ConditionKind,
    ConditionUpdate,
    new_condition,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import HolderKind

_CLEARED = ConditionUpdate(clear=frozenset({ConditionKind.LIMIT_PENDING}))


class LimitEffect(StrEnum):
    """When a limit that was changed holds for what runs on the lease."""

    NOW = "now"
    NEXT_CELL = "next_cell"  # the frameworks of a kernel take it before its next cell
    NEXT_START = "next_start"  # of the process
    UNKNOWN = "unknown"  # it could not be changed from here


def weakest(effects: list[LimitEffect]) -> LimitEffect:
    """When a limit holds that is kept in several ways; now where there is none."""
    order = list(LimitEffect)
    return max(effects, key=order.index, default=LimitEffect.NOW)


def pending_update(lease: Lease, effect: LimitEffect, now: float) -> ConditionUpdate:
    """What a lease is to say of its limits: nothing, where they hold already or with the
    kernel's next cell; else from when on.
    """
    is_kernel = lease.holder.kind is HolderKind.KERNEL
    is_soon = effect is LimitEffect.NEXT_CELL and is_kernel
    if effect is LimitEffect.NOW or is_soon:
        return _CLEARED
    shares = {ceiling_text(limit.fraction) for limit in lease.limits}
    amount = ", ".join(sorted(shares))
    message = (
        f"{amount} from the next start of its process on: what holds it now cannot be "
        "changed while it runs"
    )
    condition = new_condition(ConditionKind.LIMIT_PENDING, message, now)
    return ConditionUpdate(put=(condition,))
