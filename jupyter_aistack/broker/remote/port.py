"""What those who start and watch kernels ask of a broker, wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.condition import Condition
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.kernel_report import KernelReport
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request

from ..memory_watchdog import MemoryBreach


@dataclass(frozen=True, kw_only=True)
class DeviceHiding:
    """What a kernel must be told that is to see no GPU.

    Attributes:
        has_gpus: whether the host has real GPUs.
        environment: variables that hide them; a slice shows its own again.
    """

    has_gpus: bool
    environment: Mapping[str, str] = field(default_factory=dict)


class ProcessesOnDevice(Protocol):
    """A process and those below it, as the devices of its leases see them."""

    def has_started(self) -> bool:
        """Whether any of them holds memory of a device, or is known to a server; True
        where that cannot be read.
        """

    def is_working(self, since: float) -> bool | None:
        """Whether a device has worked for any of them since then; None when the driver
        does not say.
        """

    def clients(self) -> frozenset[int]:
        """Those of them that a server knows; none where it does not answer."""

    def terminate(self, pid: int) -> None:
        """End a client's work through its server. Raises `ProviderError`."""


class KernelBroker(Protocol):
    """A broker, for the kernels of one user. Synchronous: call it in threads.

    Each method raises `AIStackError`; `LedgerUnavailable` where the host's broker does
    not answer.
    """

    @property
    def user(self) -> str:
        """Whose kernels these are, as the broker calls that user."""

    def acquire(
        self, kernel_id: str, spec: str, *, queue: str, up_to: str, label: str
    ) -> None:
        """Submit a request for a kernel, unless it holds or waits for something
        already. Until the kernel is bound, this process holds what it gets.
        """

    def leases(self) -> tuple[Lease, ...]:
        """The user's live leases on this host, newest first."""

    def recent_leases(self) -> tuple[Lease, ...]:
        """The newest of the user's leases, ended ones too."""

    def requests(self) -> tuple[Request, ...]:
        """The user's requests that wait on this host."""

    def reason(self, request_id: str) -> str:
        """Why a request waits; empty for one that does not, or is far back."""

    def prepare(self, lease: Lease) -> Preparation:
        """Make a lease's slices ready; see `Leases.prepare`."""

    def device_hiding(self) -> DeviceHiding:
        """What hides the GPUs of this host from a kernel without a slice of them."""

    def bind(self, lease: Lease, *, pid: int, root_pid: int | None) -> Lease:
        """Tie a lease's life to process `pid`, and its use to the tree below
        `root_pid`. Device state of a process before is gone with that.
        """

    def activate(
        self,
        lease: Lease,
        *,
        verified: bool | None,
        condition: Condition | None = None,
    ) -> Lease:
        """Note that a lease is in use, and what its check has found; see
        `Leases.activate`.
        """

    def is_listed(self, lease: Lease, pid: int) -> bool | None:
        """Whether the server that enforces a lease knows a process; None where no
        server reports it.
        """

    def processes_on_device(
        self, leases: Sequence[Lease], pid: int
    ) -> ProcessesOnDevice:
        """Process `pid` and those below it, as the devices of these leases see
        them.
        """

    def cancel(self, request_id: str) -> None:
        """Withdraw a waiting request."""

    def release(self, lease: Lease) -> None:
        """Give a lease back; one that has ended stays as it is."""

    # -- regularly ---------------------------------------------------------------------

    def run_cycle(self) -> None:
        """Grant what fits now; the host's broker does so by itself."""

    def maintain(self) -> None:
        """Renew what lives, measure, and grant; the host's broker does so by itself."""

    def report(self, report: KernelReport) -> tuple[MemoryBreach, ...]:
        """Tell what has become of this server's kernels; what is to be done about
        processes of theirs that hold more memory than their lease has.
        """

    def breach_handled(self, lease: Lease, words: str) -> None:
        """Say on the lease what was done about a breach."""

    def breach_postponed(self, lease: Lease) -> None:
        """Nothing could be done about a breach now: it is handed over again."""

    def record_first_use(self) -> None:
        """A first lease begins: what its device drew before is not its own."""

    def events(self, after: int, limit: int) -> tuple[Event, ...]:
        """What has happened after a sequence number, at most so much."""
