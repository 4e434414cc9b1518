"""The provider port: what finds devices, makes slices ready and measures them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jupyter_aistack.core.enforcement.device_visibility import DeviceVisibility
from jupyter_aistack.core.enforcement.limit_effect import LimitEffect
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device, Fault
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample
from jupyter_aistack.core.placement.mig_plan import MIGPermission, MIGPlan


@dataclass(frozen=True, kw_only=True)
class ProviderOptions:
    """What the administrator has set for providers; each takes what concerns it.

    Attributes:
        argument: what is written behind the name, as in ``simulated:8xH100-80GB``.
        is_optional: it was named by ``auto``: a host without its driver is no problem.
        is_advisory: shares are held by the caps of frameworks alone.
        mps_strict: an MPS daemon for each lease instead of one for each GPU.
        serves_host: leases are for all users of the host, and not for one.
        users_share: several users may have leases of one GPU at the same time.
        mig_create: which MIG instances may be created for requests that wait; None for
            none.
    """

    argument: str = ""
    is_optional: bool = False
    is_advisory: bool = False
    mps_strict: bool = False
    serves_host: bool = False
    users_share: bool = False
    mig_create: MIGPermission | None = None


class Provider(ABC):
    """Adapter to one kind of device. Called from the broker's thread, never from an
    event loop.

    `discover` is called at most every few seconds and may raise `ProviderError`, which
    is shown to users while other providers go on. Nothing is opened before the first
    call.
    """

    name: str
    """Short name: that of its entry point, as `AISTACK_PROVIDERS` spells it."""

    simulated: bool = False

    is_automatic: bool = True
    """Whether ``auto`` includes it."""

    order: int = 50
    """Its place among the providers of ``auto``: devices of a provider with a lower
    order are listed first.
    """

    takes_argument: str = ""
    """What must be written behind the name and a colon, e.g. ``TABLE``; empty for
    nothing.
    """

    services: frozenset[str] = frozenset()
    """Programs of its driver that work for other processes."""

    visibility: DeviceVisibility = DeviceVisibility()
    """How a process is shown some of these devices and no others."""

    @classmethod
    def build(cls, options: ProviderOptions) -> Provider:
        """A provider as configured. Opens nothing.

        Raises:
            InvalidRequest: naming the field ``providers``.
        """
        return cls()

    @abstractmethod
    def discover(self, host: str) -> tuple[Device, ...]:
        """The devices of this host now. Raises `DriverNotFound` or `ProviderError`."""

    @abstractmethod
    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        """Make the lease's slices ready. Called before use and whenever a caller asks
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
            ProviderError: it is held less firmly than `prepare` reported; the next
                `prepare` reports how.
        """

    def device_files(
        self, lease: Lease, devices: Mapping[str, Device]
    ) -> tuple[str, ...] | None:
        """The device files that the processes of a lease must be able to open, and that
        show no device but its own; None where these are not known.

        Args:
            devices: this host's devices, by id.
        """
        return None

    def adjust(
        self, lease: Lease, devices: Mapping[str, Device], pids: Collection[int]
    ) -> LimitEffect:
        """Hold a lease in use to its limits of now (`Lease.effective_slices`), which have
        been raised or lowered since it was prepared. Called again with the same limits,
        it changes nothing.

        Args:
            devices: this host's devices, by id.
            pids: the processes of the lease, as far as they are known.

        Returns:
            When they hold for what runs; by default from its next start on.

        Raises:
            ProviderError: they could not be changed.
        """
        return LimitEffect.NEXT_START

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

    @property
    def allowance(self) -> str:
        """The devices that the launcher of this process may use, where the host has
        more; the same text in all processes that may use the same. Empty for all.
        """
        return ""

    def driver_version(self) -> str:
        """Version of the driver; empty where there is none or it does not say."""
        return ""

    def faults(self) -> tuple[Fault, ...]:
        """What broke the work of those who share a device and is not over. A device
        that is closed for that has a problem that says so."""
        return ()

    def restore_faults(self, faults: Sequence[DeviceFault]) -> None:  # noqa: B027 - most drivers tell them at any time
        """Take over what is written down of devices, before each `discover`: what a
        driver told once, to a process that has ended or to another, and what is over
        since another process saw the device recover.

        Args:
            faults: all that is written down of the devices of the host.
        """

    @abstractmethod
    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        """What each device reports now; everything that is shown, charged, limited or
        judged by use is read from it. Called every few seconds while anything is
        leased, and must be quick.

        Args:
            devices: this provider's devices, by id.
            leases: the leases on them: those that are live, and those that ended since
                the sample before (their state is ``ended``), so that what they did
                until then can be reported.
            pids: the processes of each lease; those of a lease that is missing are not
                known.
            since: None: activity is reported since the last sample for which it was
                None. Otherwise since that moment (seconds since the epoch), for one
                caller who must not cut the others' time short.

        Raises:
            ProviderError: nothing can be reported now.
        """

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
        self,
        wanted: Sequence[str],
        leased: Mapping[str, str],
        drained: Collection[str] = (),
    ) -> MIGPlan | None:
        """What `make_room` would do; None where devices of this kind are never cut.

        Args:
            wanted: MIG profiles, one instance of each, first served first.
            leased: lease id by the UUID of each slice that is leased.
            drained: ids of the devices that are left as they are: nothing new is
                granted on them.

        Raises:
            ProviderError: it cannot be found out.
        """
        return None

    def make_room(
        self,
        wanted: Sequence[str],
        leased: Mapping[str, str],
        drained: Collection[str] = (),
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

    def close(self) -> None:  # noqa: B027 - optional
        """Let go of the driver. Closing twice is allowed."""
