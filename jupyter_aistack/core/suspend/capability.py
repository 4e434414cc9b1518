"""How well a host can suspend its kernels."""

from __future__ import annotations

from dataclasses import dataclass

from jupyter_aistack.core.model.device_state import SuspendMethod


@dataclass(frozen=True, kw_only=True)
class SuspendCapability:
    """What has been found out.

    Attributes:
        tier: the best way that works here: checkpoint, offload, or off for none.
        why: why it is not the driver's checkpoint, in one sentence; empty when it is.
    """

    tier: SuspendMethod = SuspendMethod.OFF
    why: str = ""

    @property
    def why_not(self) -> str:
        """Why nothing can be suspended; empty when something can."""
        return self.why if self.tier is SuspendMethod.OFF else ""


UNTESTED = SuspendCapability(
    why="no self-test has shown yet that this host can suspend a process"
)
SWITCHED_OFF = SuspendCapability(
    why="it is switched off; the administrator may set AIStack.suspend"
)
NO_GPU = SuspendCapability(why="no GPU")
