"""The devices of one host, as its providers see them: found, made ready and
measured.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from jupyter_aistack.core.enforcement.device_visibility import hidden_environment
from jupyter_aistack.core.enforcement.limit_effect import LimitEffect, weakest
from jupyter_aistack.core.enforcement.preparation import Preparation, merged
from jupyter_aistack.core.model.context_memory import with_contexts
from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Fault,
    Inventory,
    Slice,
    SliceKind,
    known_or_fresh,
)
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.foreign_memory import (
    Holders,
    is_to_be_told_apart,
    with_foreign,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import HostSample
from jupyter_aistack.core.placement.mig_plan import MIGPlan
from jupyter_aistack.exceptions import PrepareFailed, ProviderError
from jupyter_aistack.providers.base import Provider
from jupyter_aistack.system.pid_namespace import PidNamespace

from .device_access import DeviceAccess
from .guarded_provider import GuardedProvider
from .host_sampler import HostSampler, OwnedDevices, Processes

INVENTORY_SECONDS = 2.0


class DeviceManager:
    """All providers of a host behind one interface.

    Args:
        providers: discover and prepare devices; the provider that discovered a device
            owns it.
        host: name of the machine.
        clock: seconds since the epoch.
        held: who holds memory by right: the processes of the live leases, and what was
            granted to these; what others hold is foreign.
        namespace: tells which listed ids are of processes here.
        host_name: what people call the machine; empty where that is `host`.
        recorded_faults: what is written down of the host's devices; None where that
            cannot be read now.

    Attributes:
        access: keeps processes to the device files of their leases; None for not.
        context_bytes: what a context takes on each device, where it was measured.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        host: str,
        clock: Callable[[], float],
        held: Callable[[], Holders],
        namespace: PidNamespace | None = None,
        host_name: str = "",
        recorded_faults: Callable[[], Sequence[DeviceFault] | None] = lambda: None,
    ) -> None:
        self.providers = tuple(providers)
        self._guarded = tuple(GuardedProvider(provider) for provider in providers)
        self.host = host
        self._host_name = host_name
        self._clock = clock
        self._held = held
        self._recorded_faults = recorded_faults
        self._namespace = namespace or PidNamespace()
        self._lock = threading.RLock()
        self._owners: dict[str, GuardedProvider] = {}
        self._seen: dict[GuardedProvider, tuple[Device, ...]] = {}
        self._prepared: dict[str, Lease] = {}
        self._found: Inventory | None = None
        self._found_at = 0.0
        self.context_bytes: dict[str, int] = {}
        self.access: DeviceAccess | None = None
        self._sampler = HostSampler(
            self.inventory, self._by_owner, clock, self._namespace
        )

    def inventory(self) -> Inventory:
        """The devices, at most two seconds old, with the memory of foreign processes
        marked.
        """
        with self._lock:
            known = self._found
            if (
                known is None
                or not 0 <= self._clock() - self._found_at < INVENTORY_SECONDS
            ):
                fresh = self._discover()
                self._found = known = known_or_fresh(known, fresh)
                self._found_at = self._clock()
            return known

    @property
    def allowance(self) -> str:
        """The devices that may be granted here, where the launcher of this process may
        use fewer than the host has; empty for all.
        """
        self.inventory()
        return ";".join(each.allowance for each in self._guarded if each.allowance)

    @property
    def names_processes(self) -> bool:
        """Whether the ids on devices' lists are of processes here for certain."""
        return self._namespace.is_of_host

    @property
    def services(self) -> frozenset[str]:
        """Programs of drivers that work for other processes."""
        return frozenset().union(*(each.services for each in self.providers))

    def forget(self) -> None:
        """Discover devices anew next time: processes have become ours, or foreign.
        Without a real GPU no process can be foreign.
        """
        with self._lock:
            devices = self._found.of_kind(DeviceKind.GPU) if self._found else ()
            if any(not device.simulated for device in devices):
                self._found_at = float("-inf")

    def has_moved(self, lease: Lease) -> None:
        """The device state of a lease has moved, or begins to: what is free is looked
        at anew.
        """
        for provider in dict.fromkeys(
            self._owners.get(slice_.device_id) for slice_ in lease.slices
        ):
            if provider is not None:
                provider.has_moved(lease)
        with self._lock:
            self._found_at = float("-inf")

    def simulated_state(self, lease: Lease) -> int | None:
        """Bytes that a lease would have on each of its devices if they were real; None
        where they are.
        """
        gpus = [slice_ for slice_ in lease.slices if slice_.kind is not SliceKind.CPU]
        owners = {self._owners.get(slice_.device_id) for slice_ in gpus}
        states = [
            None if owner is None else owner.simulated_state(lease) for owner in owners
        ]
        known = [state for state in states if state is not None]
        return max(known) if known and len(known) == len(states) else None

    def _discover(self) -> Inventory:
        problems: list[str] = []
        faults = self._recorded_faults()
        for provider in self._guarded:
            if faults is not None:
                provider.restore_faults(faults)
            try:
                self._seen[provider] = provider.discover(self.host)
            except ProviderError as error:
                # Devices seen before are there still, only silent: requests for them
                # wait and go nowhere else.
                problems.append(f"{provider.name}: {error.message}")
                self._seen[provider] = tuple(
                    replace(d, problem=error.message)
                    for d in self._seen.get(provider, ())
                )
            self._owners.update(
                {device.id: provider for device in self._seen[provider]}
            )
        problems.extend(each.problem for each in self._guarded if each.problem)
        problems.extend(self.access.problems.values() if self.access else ())
        inventory = Inventory(
            host=self.host,
            devices=with_contexts(
                (d for each in self._guarded for d in self._seen[each]),
                self.context_bytes,
            ),
            problems=tuple(problems),
            host_name=self._host_name,
        )
        return self._told_apart(inventory)

    def _told_apart(self, inventory: Inventory) -> Inventory:
        """The inventory with foreign memory marked."""
        gpus = inventory.of_kind(DeviceKind.GPU)
        if not any(is_to_be_told_apart(gpu) for gpu in gpus):
            return inventory
        holders = self._held()
        listed = {use.pid for gpu in gpus for use in gpu.processes or ()}
        elsewhere = self._namespace.elsewhere(listed - holders.ours)
        return with_foreign(inventory, replace(holders, elsewhere=elsewhere))

    def hidden_environment(self) -> dict[str, str]:
        """Variables that hide the real GPUs of this host from a process; a slice shows
        those of its own again.
        """
        gpus = self.inventory().of_kind(DeviceKind.GPU)
        owners = [self._owners.get(gpu.id) for gpu in gpus if not gpu.simulated]
        known = dict.fromkeys(owner for owner in owners if owner is not None)
        return hidden_environment(provider.visibility for provider in known)

    def prepared(self) -> tuple[Lease, ...]:
        """The leases whose preparation has not been undone."""
        return tuple(self._prepared.values())

    def prepare(self, lease: Lease) -> Preparation:
        """Make a lease's slices ready.

        Raises:
            PrepareFailed: a provider cannot, or a device is gone.
        """
        devices = {d.id: d for d in self.inventory().devices}
        self._prepared[lease.id] = lease
        try:
            return merged(
                [
                    _prepared_by(provider, lease, devices)
                    for provider in self._providers_of(lease)
                ]
            )
        except ProviderError as error:
            raise PrepareFailed(error.message, lease_id=lease.id) from error

    def _providers_of(self, lease: Lease) -> list[GuardedProvider]:
        owners = [self._owners.get(slice_.device_id) for slice_ in lease.slices]
        if any(owner is None for owner in owners):
            raise PrepareFailed(
                "a device of this lease is no longer there", lease_id=lease.id
            )
        return list(dict.fromkeys(owner for owner in owners if owner is not None))

    def _owners_of(self, lease: Lease) -> list[GuardedProvider]:
        """The providers of a lease's devices, as far as they are known."""
        owners = dict.fromkeys(self._owner(slice_) for slice_ in lease.slices)
        return [owner for owner in owners if owner is not None]

    def unprepare(self, lease: Lease) -> None:
        """Undo `prepare`; for a lease never prepared nothing happens."""
        self._prepared.pop(lease.id, None)
        for provider in self._owners_of(lease):
            provider.unprepare(lease)
        if self.access is not None:
            self.access.leave(lease)

    def enter(self, lease: Lease, pid: int) -> None:
        """Put what holds a prepared lease from outside around a process. Raises
        `ProviderError`: it is held less.
        """
        if self.access is not None:
            self.access.enter(lease, pid)
        for provider in self._owners_of(lease):
            provider.enter(lease, pid)

    def files_of(self, lease: Lease) -> tuple[str, ...] | None:
        """The device files of a lease; None where a provider does not know them."""
        devices = {d.id: d for d in self.inventory().devices}
        parts = [each.device_files(lease, devices) for each in self._owners_of(lease)]
        files = [part for part in parts if part is not None]
        return sum(files, ()) if len(files) == len(parts) else None

    def adjust(self, lease: Lease, pids: Collection[int]) -> LimitEffect:
        """Hold a lease in use to its limits of now. Raises `ProviderError`."""
        devices = {d.id: d for d in self.inventory().devices}
        self._prepared[lease.id] = lease  # by whomever; undone here as well
        owners = self._owners_of(lease)
        return weakest([each.adjust(lease, devices, pids) for each in owners])

    def plan_room(
        self,
        wanted: Sequence[str],
        leased: Mapping[str, str],
        drained: Collection[str] = (),
    ) -> MIGPlan:
        """Which MIG instances would be created for `wanted`, and why not for some.
        Raises `ProviderError`.
        """
        self.inventory()
        plans = [
            provider.plan_room(wanted, leased, drained) for provider in self._guarded
        ]
        nobody = MIGPlan(
            refused=tuple((profile, "no device here can be cut") for profile in wanted)
        )
        return next((plan for plan in plans if plan is not None), nobody)

    def make_room(
        self,
        wanted: Sequence[str],
        leased: Mapping[str, str],
        drained: Collection[str] = (),
    ) -> tuple[str, ...]:
        """Create MIG instances for `wanted`; what was done, one phrase per step.
        Raises `Refused` and `ProviderError`.
        """
        self.inventory()
        try:
            return tuple(
                d
                for provider in self._guarded
                for d in provider.make_room(wanted, leased, drained)
            )
        finally:
            self.forget()

    # -- what holds a slice to its size ------------------------------------------------

    def clients(self, lease: Lease) -> frozenset[int] | None:
        """The processes that the servers behind a lease know of; None when there is no
        such server, or it is mute.
        """
        answers = [provider.clients(lease) for provider in self._owners_of(lease)]
        known = [clients for clients in answers if clients is not None]
        return frozenset().union(*known) if known else None

    def terminate(self, lease: Lease, pid: int) -> None:
        """End a client's work through the server that knows it. Raises
        `ProviderError`.
        """
        for provider in self._owners_of(lease):
            provider.terminate(lease, pid)

    def _owner(self, slice_: Slice) -> GuardedProvider | None:
        """The provider of a slice's device, which may not have been discovered yet."""
        if slice_.device_id not in self._owners:
            self.inventory()
        return self._owners.get(slice_.device_id)

    def driver_version(self) -> str:
        """Version of the driver of the first provider that reports one; else empty."""
        versions = (provider.driver_version() for provider in self._guarded)
        return next((version for version in versions if version), "")

    def faults(self) -> tuple[Fault, ...]:
        """The faults that devices have not been cleared of yet; a provider that cannot
        tell is passed over.
        """
        return tuple(fault for provider in self._guarded for fault in provider.faults())

    # -- measuring ---------------------------------------------------------------------

    @property
    def latest(self) -> HostSample | None:
        """The newest sample; None before the first."""
        return self._sampler.latest

    def samples_after(self, number: int) -> tuple[HostSample, ...]:
        """The samples taken since the sample of this number, oldest first."""
        return self._sampler.after(number)

    def sample(
        self, leases: Sequence[Lease], pids: Processes, *, max_age_seconds: float = 0.0
    ) -> HostSample:
        """What every device reports; see `HostSampler.sample`."""
        return self._sampler.sample(leases, pids, max_age_seconds)

    def fresh(
        self,
        leases: Sequence[Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> HostSample:
        """What the devices of some leases report at this very moment; see
        `HostSampler.fresh`.
        """
        return self._sampler.fresh(leases, pids, since)

    def _by_owner(self, devices: Mapping[str, Device]) -> list[OwnedDevices]:
        """Devices by the provider they belong to."""
        owned: list[OwnedDevices] = []
        for provider in self._guarded:
            own = {i: d for i, d in devices.items() if self._owners.get(i) is provider}
            if own:
                owned.append((provider, own))
        return owned

    def close(self) -> None:
        """Let go of the drivers."""
        for provider in self._guarded:
            provider.close()


def _prepared_by(
    provider: Provider, lease: Lease, devices: Mapping[str, Device]
) -> Preparation:
    """What a provider prepares, with how its devices are shown to a process."""
    prepared = provider.prepare(lease, devices)
    visibility = (provider.visibility,) if provider.visibility.hidden else ()
    return replace(prepared, visibility=visibility)
