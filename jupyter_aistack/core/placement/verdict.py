"""The answer of placement: slices, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass

from jupyter_aistack.core.model.device import Slice
from jupyter_aistack.exceptions import UnknownProfile, Unsatisfiable

UNSATISFIABLE = Unsatisfiable.__name__
UNKNOWN_PROFILE = UnknownProfile.__name__


@dataclass(frozen=True, kw_only=True)
class PlacementFailure:
    """Why a spec got no slices.

    Attributes:
        reason: one sentence for the user who asked.
        never: why no state of this inventory could hold it, as the name of the error to
            raise; empty when a state could.
    """

    reason: str
    never: str = ""


PlacementVerdict = tuple[Slice, ...] | PlacementFailure
"""The slices of a spec, or why it got none."""
