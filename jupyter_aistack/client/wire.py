"""Parts of a lease from JSON and to it; what decodes them is imported with the first
use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jupyter_aistack.core.enforcement.preparation import Preparation

from .transports import JSON

if TYPE_CHECKING:
    from jupyter_aistack.core.model.condition import Condition


def preparation_of(data: Mapping[str, Any] | None) -> Preparation:
    """What a process must be given; nothing for a lease that is over."""
    if not data:
        return Preparation()
    from jupyter_aistack.core.wire.preparations import PREPARATION

    return PREPARATION.from_dict(data)


def is_usable(lease: JSON) -> bool:
    """Whether its slices are this process's still: not when it is being released."""
    from jupyter_aistack.core.model.lease import LeaseState

    state = LeaseState(lease["state"])
    return state in (LeaseState.GRANTED, LeaseState.ACTIVE, LeaseState.SUSPENDED)


def condition_dict(condition: Condition | None) -> JSON | None:
    """A condition as it is sent."""
    if condition is None:
        return None
    from jupyter_aistack.core.wire.preparations import CONDITION

    return CONDITION.to_dict(condition)
