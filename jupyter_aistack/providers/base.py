"""The provider port: what finds devices, makes slices ready and measures them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jupyter_aistack.core.accounting.attribution import ProcessLoad
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device, Fault
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.placement.mig_plan import MIGPlan


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was in use at one moment. None means "cannot be known here", never zero.

    Attributes:
        memory_bytes: memory held.
        utilization: busy share of the slice or device, 0 to 1.
        power_watts: power drawn (devices only).
        energy_joules: energy counter since some fixed moment (devices only).
    """

    memory_bytes: int | None = None
    utilization: float | None = None
    power_watts: float | None = None
    energy_joules: float | None = None


class Provider(ABC):
    """Adapter to one kind of device. Called from the broker's thread, never from an
    event loop.

    `discover` is called at most every few seconds and may raise `ProviderError`, which
    is shown to users while other providers go on. Nothing is opened before the first
    call.
    """

    name: str
    """Short name, as `AISTACK_PROVIDERS` spells it."""

    simulated: bool = False

    @abstractmethod
    def discover(self, host: str) -> tuple[Device, ...]:
        """The devices of this host now. Raises `DriverNotFound` or `ProviderError`."""

    @abstractmethod
    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        """Make the lease's slices ready. Called before use and whenever somebody asks
        what its process was given, so it must be repeatable and quick, and change
        nothing the second time.

        Raises:
            PrepareFailed: the lease is then ended as failed.
        """

    def unprepare(self, lease: Lease) -> None:  # noqa: B027 - most providers have nothing to undo
        """Undo `prepare`. Called when the lease ends, maybe twice, maybe for a lease
        never prepared; must not raise.
        """

    def enter(self, lease: Lease, pid: int) -> None:  # noqa: B027 - most providers hold a process by what it is given
        """Put what holds a lease from outside around a process, before it opens a
        device. Called when a process is tied to a prepared lease, maybe twice.

        Raises:
            ProviderError: it is held less firmly than `prepare` said; the next
                `prepare` says how.
        """

    def clients(self, lease: Lease) -> frozenset[int] | None:
        """Processes that the server which holds this lease knows; None: no server holds
        it, or it does not answer.

        MPS protocol 2 does not tell the leases of a device apart: the clients of all of
        them are given.
        """
        return None

    def terminate(self, lease: Lease, pid: int) -> None:  # noqa: B027 - most providers have no server
        """End one process's work through the server that holds its lease, before the
        process itself is ended.

        Raises:
            ProviderError: no server holds the lease, or it does not know the process,
                or does not answer.
        """

    def faults(self) -> tuple[Fault, ...]:
        """What broke the work of those who share a device and is not over. A device
        that is closed for that has a problem that says so."""
        return ()

    @abstractmethod
    def usage(
        self, leases: Mapping[str, Lease], pids: Mapping[str, frozenset[int]]
    ) -> Mapping[str, Usage]:
        """Use per lease id, given each lease's processes."""

    @abstractmethod
    def device_usage(self, devices: Mapping[str, Device]) -> Mapping[str, Usage]:
        """Use per device id, whoever causes it."""

    def has_moved(self, lease: Lease) -> None:  # noqa: B027 - a driver knows by itself
        """The device state of a lease has moved out or in, or begins to; must not
        raise.
        """

    def simulated_state(self, lease: Lease) -> int | None:
        """Bytes that a lease would hold on each of its devices if they were real; None
        where they are.
        """
        return None

    def plan_room(
        self, wanted: Sequence[str], leased: Mapping[str, str]
    ) -> MIGPlan | None:
        """What `make_room` would do; None where devices of this kind are never cut.

        Args:
            wanted: MIG profiles, one instance of each, first served first.
            leased: lease id by the UUID of each slice that is leased.

        Raises:
            ProviderError: it cannot be found out.
        """
        return None

    def make_room(
        self, wanted: Sequence[str], leased: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Cut devices anew for `wanted`; called at the end of a cycle for those it
        could not serve, or by an admin.

        Returns:
            What was done, one phrase each.

        Raises:
            Refused: the administrator has not allowed it.
            ProviderError: a step failed; ``facts["done"]`` are those before it.
        """
        return ()

    def loads(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
    ) -> Mapping[str, ProcessLoad]:
        """What happened on each device since the last call: its energy counter, and how
        active each lease was.

        Called every few seconds by the one process that keeps the books of the host,
        with the leases that ended since as well. What cannot be known is missing; where
        nothing can, a load says nothing.
        """
        return {device_id: ProcessLoad() for device_id in devices}

    def memory_by_process(
        self, uuids: Iterable[str]
    ) -> Mapping[str, Mapping[int, int | None] | None]:
        """Bytes each process holds on GPUs and MIG instances, by their UUID and process
        id.

        None for a process whose figure the driver keeps to itself, and for a device
        whose list cannot be read; what is not this provider's is left out. Called every
        two seconds while GPUs are leased: one list per device.
        """
        return {}

    def is_working(
        self, uuids: Iterable[str], pids: frozenset[int], since: float
    ) -> bool | None:
        """Whether a GPU has worked for one of `pids` since that moment (seconds since
        the epoch); None: unknown.
        """
        return None

    def close(self) -> None:  # noqa: B027 - optional
        """Let go of the driver. Closing twice is allowed."""
