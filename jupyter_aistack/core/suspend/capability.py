"""How well a host can suspend its kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jupyter_aistack.core.model.device_state import SuspendMethod
from jupyter_aistack.core.model.policy import SuspendPolicy


@dataclass(frozen=True, kw_only=True)
class SuspendCapability:
    """What has been found out.

    Attributes:
        tier: the best way that works here: checkpoint, offload, or off for none.
        why: why it is not the driver's checkpoint, in one sentence; empty when it is.
        is_being_tested: it is being found out. Until then kernels get leases that may
            be suspended, and none is suspended before its server has looked at it.
        context_bytes: what a bare context takes on its GPUs, the most of them; None
            where it has not been measured.
    """

    tier: SuspendMethod = SuspendMethod.OFF
    why: str = ""
    is_being_tested: bool = False
    context_bytes: int | None = None

    @property
    def why_not(self) -> str:
        """Why nothing can be suspended; empty when something can, or may."""
        is_off = self.tier is SuspendMethod.OFF and not self.is_being_tested
        return self.why if is_off else ""

    def measured(self, policy: SuspendPolicy) -> SuspendPolicy:
        """The policy, with the size of a context as it was measured where it names
        none.
        """
        if policy.context_bytes is not None:
            return policy
        return replace(policy, context_bytes=self.context_bytes)


UNTESTED = SuspendCapability(
    why="no self-test has shown yet that this host can suspend a process"
)
BEING_TESTED = SuspendCapability(
    why="a self-test is finding out whether this host can suspend a process",
    is_being_tested=True,
)
SWITCHED_OFF = SuspendCapability(
    why="it is switched off; the administrator may set AIStack.suspend"
)
BY_SERVERS_ALONE = SuspendCapability(
    why="Jupyter servers suspend kernels with a broker of their own; where the host's "
    "broker grants, none is suspended"
)
NO_GPU = SuspendCapability(why="no GPU")
