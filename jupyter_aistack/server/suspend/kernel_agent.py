"""What is asked of the agent in a kernel when its state is to move."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from jupyter_aistack.core.model.lease import Lease

JSON = dict[str, Any]
PATIENCE_SECONDS = 5.0
"""Until an agent must have fetched a command."""
REPORT_SECONDS = 30.0
"""How long an agent may take for a report."""
COPY_SECONDS = 600.0
"""How long an agent may take to copy registered objects."""


class AgentCall(Protocol):
    """Has a kernel's agent do something; see `AgentMailbox.call`."""

    def __call__(
        self,
        kernel_id: str,
        act: str,
        *,
        kinds: Collection[str] = (),
        patience: float,
        seconds: float,
    ) -> JSON | None:
        """Its answer; None when no agent has fetched the command."""


class Busy(Exception):
    """A cell runs in the kernel, so it cannot be inspected now; the argument says
    so.
    """


class KernelAgent:
    """The agents of the kernels that hold leases.

    Args:
        call: has an agent do something.
        is_simulated: whether a lease is on simulated devices.
    """

    def __init__(self, call: AgentCall, is_simulated: Callable[[Lease], bool]) -> None:
        self._call = call
        self._is_simulated = is_simulated

    def report(self, lease: Lease, *, trims: bool) -> JSON | None:
        """What blocks suspension inside the kernel; None where no agent can say.

        Args:
            trims: have what is only cached dropped first.

        Raises:
            Busy: a cell runs.
        """
        act = "trim" if trims else "report"
        report = self._command(lease, act, REPORT_SECONDS)
        if report is None:
            return None
        if report.get("is_busy"):
            raise Busy(report["error"])
        return None if "error" in report else report

    def copy_out(self, lease: Lease) -> JSON:
        """Have what is registered copied to the host: ``size_bytes``, or ``error``."""
        return self._copy(lease, "out")

    def copy_in(self, lease: Lease) -> JSON:
        """Have what is registered copied back to the device; ``error`` where that
        failed.
        """
        return self._copy(lease, "in")

    def _copy(self, lease: Lease, act: str) -> JSON:
        answer = self._command(lease, act, COPY_SECONDS)
        return {"error": "nothing in its kernel answers"} if answer is None else answer

    def _command(self, lease: Lease, act: str, seconds: float) -> JSON | None:
        # On simulated devices the CPU stands in for a GPU.
        kinds = {"cuda", "cpu"} if self._is_simulated(lease) else {"cuda"}
        return self._call(
            lease.holder.id,
            act,
            kinds=frozenset(kinds),
            patience=PATIENCE_SECONDS,
            seconds=seconds,
        )
