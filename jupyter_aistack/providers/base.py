"""The provider port: what finds devices, makes slices ready and measures them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..core.device import Device, Enforcement, Fault
from ..core.lease import Lease


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What the holder's process must be given, and what holds it to that.

    Attributes:
        environment: variables to set; they only take effect before CUDA or OpenMP starts.
        cores: CPU cores to bind the process to; empty leaves it alone.
        memory_limit_bytes: memory that belongs to the lease, for caps the process sets itself.
        enforced_by: what enforces it.
        expects: what a process with this environment must find: ``visible`` (device UUIDs CUDA would show),
            ``cores`` (CPU affinity), ``threads`` (OMP_NUM_THREADS), ``memory_total`` and ``memory_free`` (bytes of
            device memory, at most), ``multiprocessors`` (at most), ``mps`` (True: it must be among `Provider.clients`).
            A key that is absent is not checked.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    memory_limit_bytes: int = 0
    enforced_by: Enforcement = Enforcement.L0
    expects: Mapping[str, object] = field(default_factory=dict)


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
    """Adapter to one kind of device. Called from the broker's thread, never from an event loop.

    `discover` is called at most every few seconds and may raise `ProviderError`, which is shown to users while other
    providers go on. Nothing is opened before the first call.
    """

    name: str
    """Short name, as `AISTACK_PROVIDERS` spells it."""

    simulated: bool = False

    @abstractmethod
    def discover(self, host: str) -> tuple[Device, ...]:
        """The devices of this host now. Raises `DriverNotFound` or `ProviderError`."""

    @abstractmethod
    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Prepared:
        """Make the lease's slices ready. Called before use and whenever somebody asks what its process was given, so
        it must be repeatable and quick, and change nothing the second time.

        Raises:
            PrepareFailed: the lease is then ended as failed.
        """

    def unprepare(self, lease: Lease) -> None:  # noqa: B027 - most providers have nothing to undo
        """Undo `prepare`. Called when the lease ends, maybe twice, maybe for a lease never prepared; must not raise."""

    @abstractmethod
    def usage(self, leases: Mapping[str, Lease], pids: Mapping[str, frozenset[int]]) -> Mapping[str, Usage]:
        """Use per lease id, given each lease's processes."""

    @abstractmethod
    def device_usage(self, devices: Mapping[str, Device]) -> Mapping[str, Usage]:
        """Use per device id, whoever causes it."""

    def clients(self, lease: Lease) -> frozenset[int] | None:
        """The processes that the server which holds the lease to its size knows of; None: there is no such server.

        Raises:
            ProviderError: there is one, and it does not answer.
        """
        return None

    def terminate(self, lease: Lease, pid: int) -> None:  # noqa: B027 - nothing to do without such a server
        """End one client's work through that server, so that its neighbours are left whole when it is killed.

        One that it does not know (any more) is no error. Raises `ProviderError`.
        """

    def faults(self) -> tuple[Fault, ...]:
        """The faults that devices have not been cleared of yet."""
        return ()

    def memory_by_process(self, uuids: Iterable[str]) -> Mapping[str, Mapping[int, int | None] | None]:
        """Bytes each process holds on GPUs and MIG instances, by their UUID and process id.

        None for a process whose figure the driver keeps to itself, and for a device whose list cannot be read; what is
        not this provider's is left out. Called every two seconds while GPUs are leased: one list per device.
        """
        return {}

    def is_working(self, uuids: Iterable[str], pids: frozenset[int], since: float) -> bool | None:
        """Whether a GPU has worked for one of `pids` since that moment (seconds since the epoch); None: unknown."""
        return None

    def close(self) -> None:  # noqa: B027 - optional
        """Let go of the driver. Closing twice is allowed."""
