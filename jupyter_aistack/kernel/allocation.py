"""What a kernel has at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request, RequestState


@dataclass(frozen=True, kw_only=True)
class KernelAllocation:
    """What a kernel has at one moment.

    Attributes:
        leases: its live leases.
        prepared: what its process must be given; None when it holds nothing.
        request: its waiting request, if any.
        has_gpus: whether the host has real GPUs that are leased out; None when that
            could not be found out.
        hidden: variables that hide those from its process.
        why_none: why it has no slice though a slice was requested.
    """

    leases: tuple[Lease, ...] = ()
    prepared: Preparation | None = None
    request: Request | None = None
    has_gpus: bool | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)
    why_none: str = ""

    @property
    def is_waiting(self) -> bool:
        """Whether its request is still in the queue."""
        return self.request is not None and self.request.state is RequestState.QUEUED
