"""What holds a share of a GPU to its size: the firmest level its GPU reaches, or the
caps of frameworks alone.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jupyter_aistack.core.enforcement.limit_effect import LimitEffect
from jupyter_aistack.core.enforcement.preparation import NOTHING_EXPECTED, Expectation
from jupyter_aistack.core.model.condition import (
    ConditionKind,
    Conditions,
    new_condition,
)
from jupyter_aistack.core.model.device import (
    Device,
    Enforcement,
    Fault,
    ProcessUse,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.exceptions import PrepareFailed, ProviderError
from jupyter_aistack.system.processes import ancestors, is_alive
from jupyter_aistack.system.users import is_root

from .capability_probe import CapabilityProbe
from .dmem import DmemClient
from .levels import EnforcementOption
from .mps import MPSAssignment, MPSManager
from .mps.clients import client_environment, client_expects, most_of
from .mps.limits import (
    limit_mib,
    percent,
    slots,
)
from .mps.users import SHARED_SERVER, uid_behind
from .nvml import NVML
from .visibility import VISIBILITY

log = logging.getLogger("jupyter_aistack")

ADVISORY = (
    'AIStack.enforcement is "advisory": shares are held by the caps of frameworks alone'
)
SERVER = "nvidia-cuda-mps-server"
_PROTOCOLS = {Enforcement.L1: 2, Enforcement.L2: 3, Enforcement.L3: 3}


@dataclass(frozen=True, kw_only=True)
class EnforcementHandle:
    """What holds a lease to its share, besides the caps of frameworks.

    Attributes:
        level: None when nothing else holds it.
        environment: variables its process must be given.
        expects: what that process must find.
        conditions: why it is enforced at a lower level than shares of its GPU can be.
    """

    level: Enforcement | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    expects: Expectation = NOTHING_EXPECTED
    conditions: Conditions = ()


class ShareEnforcer:
    """Holds the shares of this host's GPUs.

    Args:
        nvml: the connection to the driver.
        is_advisory: nothing but the caps of frameworks is to hold shares.
        mps: the MPS daemons.
        dmem: the root helper for memory limits.
        prober: tells the level of each GPU; made from the others unless given.
        clock: seconds since the epoch.
        serves_host: it is for leases of all users of the host.
        users_share: these may share a GPU.
    """

    def __init__(
        self,
        nvml: NVML,
        *,
        is_advisory: bool = False,
        mps: MPSManager | None = None,
        dmem: DmemClient | None = None,
        prober: CapabilityProbe | None = None,
        clock: Callable[[], float] = time.time,
        serves_host: bool = False,
        users_share: bool = False,
    ) -> None:
        self._users_share = users_share and is_root()
        self._serves_host = serves_host and is_root()
        self._serves_others_not = serves_host and not is_root()
        self._mps = mps or MPSManager()
        self._dmem = dmem or DmemClient()
        refusal = ADVISORY if is_advisory else ""
        self.prober = prober or CapabilityProbe(
            nvml, self._mps, self._dmem, refusal=refusal, clock=clock
        )
        self._prepared: dict[str, tuple[Lease, bool]] = {}
        self._closed: dict[str, str] = {}
        self._groups: dict[str, str] = {}
        self._no_group: dict[str, str] = {}

    # -- telling -----------------------------------------------------------------------

    def visible_level(self, device: Device) -> Device:
        """A GPU with its level, and with what MPS has against its use."""
        if not device.is_healthy:
            return device
        try:
            rung = self.prober.rung(device)
        except (
            ProviderError
        ) as error:  # it was lost since it was found; the next look tells
            log.debug("the level of %s is not known: %s", device.id, error)
            return device
        closed = self._mps.problem(device.id, device.index)
        self._closed[device.id] = closed
        return replace(
            device,
            level=rung.level,
            why_not=rung.why_not,
            advice="; ".join(
                filter(None, [device.advice, rung.advice, self._shared(rung)])
            ),
            problem=rung.problem or closed,
            processes=self._without_servers(device),
        )

    def _shared(self, rung: EnforcementOption) -> str:
        """What is lost where several users share the MPS server of a GPU."""
        is_by_mps = rung.level is not None and rung.level.is_by_mps
        is_by_namespace = is_by_mps and rung.level is not Enforcement.L1
        return SHARED_SERVER if self._users_share and is_by_namespace else ""

    def _without_servers(self, device: Device) -> tuple[ProcessUse, ...] | None:
        """Who holds memory, without our own MPS servers: what they hold belongs to the
        leases they serve.
        """
        if device.processes is None:
            return None
        named = [use.pid for use in device.processes if use.name == SERVER]
        servers = self.servers_among(named)
        return tuple(use for use in device.processes if use.pid not in servers)

    def servers_among(self, pids: Iterable[int]) -> frozenset[int]:
        """Those of some processes that are our own MPS servers."""
        daemons = self._mps.own_pids()
        if not daemons:
            return frozenset()
        return frozenset(
            pid for pid in pids if not daemons.isdisjoint((pid, *ancestors(pid)))
        )

    def reopened(self, device: Device) -> Device:
        """A GPU as it stands now, where MPS had closed it: the process that is to start
        may be what was waited for.
        """
        if not device.problem or device.problem != self._closed.get(device.id):
            return device
        self._mps.check()
        return replace(device, problem=self._mps.problem(device.id, device.index))

    def clients(self, lease: Lease, device: Device) -> frozenset[int] | None:
        """See `Provider.clients`."""
        return self._mps.clients(lease.id, device.id, device.index)

    def terminate(self, lease: Lease, device: Device, pid: int) -> None:
        """See `Provider.terminate`."""
        self._mps.terminate(lease.id, device.id, device.index, pid)

    def faults(self) -> tuple[Fault, ...]:
        """See `Provider.faults`."""
        return self._mps.faults()

    # -- holding -----------------------------------------------------------------------

    def enforce(
        self, lease: Lease, slices: Sequence[Slice], devices: Mapping[str, Device]
    ) -> EnforcementHandle:
        """Hold a lease as firmly as its GPU allows; the second time changes nothing.

        Raises:
            PrepareFailed: the lease cannot be held at all: no slot, a closed GPU, or
                its holder has a lease under MPS.
        """
        self._check_holder(lease)
        if lease.residence is not None:
            # The driver cannot suspend a client of MPS.
            return self._unheld(lease, "", VISIBILITY.detached)
        shares = [slice_ for slice_ in slices if slice_.kind is SliceKind.SHARE]
        if not shares:
            return self._unheld(lease, "")
        device = devices[shares[0].device_id]
        is_refused = lease.enforced_by is Enforcement.L0
        if is_refused or device.level not in _PROTOCOLS:
            return self._unheld(lease, self._mps.failure(device.id))
        if reason := self._unfit(lease, slices):
            return self._unheld(lease, reason)
        try:
            handle = self._hold(lease, shares[0], device)
        except PrepareFailed:
            raise
        except ProviderError as error:
            return self._unheld(lease, error.message)
        self._prepared[lease.id] = (lease, True)
        return handle

    def adjust(
        self, lease: Lease, slices: Sequence[Slice], devices: Mapping[str, Device]
    ) -> LimitEffect:
        """Hold a lease in use to its limits of now: those of an MPS namespace at once,
        those of an older daemon for processes to come. Raises `ProviderError`.
        """
        shares = [slice_ for slice_ in slices if slice_.kind is SliceKind.SHARE]
        if lease.enforced_by is None or not shares:
            return LimitEffect.UNKNOWN
        if not lease.enforced_by.is_by_mps:
            return LimitEffect.NEXT_CELL
        device = devices[shares[0].device_id]
        if not self._mps.holds(lease.id, device.id, device.index):
            return LimitEffect.UNKNOWN
        held = self._set_limit(lease, shares[0], device)
        if held.protocol < 3:
            return LimitEffect.NEXT_START
        return self._adjust_group(lease, shares[0], held)

    def _adjust_group(
        self, lease: Lease, slice_: Slice, held: MPSAssignment
    ) -> LimitEffect:
        """Lower the limit of a lease's control group; while processes run in it, its
        helper raises none.
        """
        if lease.enforced_by is not Enforcement.L3:
            return LimitEffect.NOW
        try:
            self._dmem.hold(held.limit.name, slice_.device_id, slice_.memory_bytes)
        except ProviderError:
            return LimitEffect.NEXT_START
        return LimitEffect.NOW

    def release(self, lease: Lease, devices: Sequence[tuple[str, int]]) -> None:
        """Hold a lease no longer. Must not raise.

        Args:
            devices: UUID and index of each of its GPUs.
        """
        self._prepared.pop(lease.id, None)
        self._no_group.pop(lease.id, None)
        for gpu, index in devices:
            self._mps.unprepare(lease.id, gpu, index)
        group = self._groups.pop(lease.id, None)
        if group is not None:
            self._drop_group(group)

    def enter(self, lease: Lease, pid: int) -> None:
        """Put a lease's control group around a process. Raises `ProviderError`: it is
        held by MPS alone now.
        """
        group = self._groups.get(lease.id)
        if group is None or not is_alive(pid, None):
            return
        try:
            self._dmem.enter(group, pid)
        except ProviderError as error:
            if is_alive(pid, None):
                self._no_group[lease.id] = error.message
                self._drop_group(self._groups.pop(lease.id))
                raise

    def close(self) -> None:
        """Watch no longer; what holds leases stays."""
        self._mps.close()

    def _hold(self, lease: Lease, slice_: Slice, device: Device) -> EnforcementHandle:
        assert device.level is not None
        held = self._set_limit(lease, slice_, device)
        if device.level is Enforcement.L3 and held.protocol == 3:
            self._make_group(lease, slice_, held)
        by_namespace = Enforcement.L2 if held.protocol == 3 else Enforcement.L1
        level = Enforcement.L3 if lease.id in self._groups else by_namespace
        most = most_of(lease, device, held)
        return EnforcementHandle(
            level=level,
            environment=client_environment(held, most),
            expects=client_expects(held, most, device, self.prober.capability(device)),
            conditions=_reduced(self._why_less(lease, level, device.level, held)),
        )

    def _set_limit(self, lease: Lease, slice_: Slice, device: Device) -> MPSAssignment:
        level = device.level or Enforcement.L1
        return self._mps.prepare(
            lease.id,
            device.id,
            device.index,
            percent=percent(slice_.fraction),
            mib=limit_mib(slice_.memory_bytes),
            protocol=_PROTOCOLS.get(level, 2),
            slots=slots(self.prober.driver),
            uid=uid_behind(lease.holder) if self._serves_host else None,
        )

    def _why_less(
        self,
        lease: Lease,
        level: Enforcement,
        reachable: Enforcement,
        held: MPSAssignment,
    ) -> str:
        if level is reachable:
            return ""
        return (
            self._no_group.get(lease.id)
            or held.reason
            or "the MPS daemon of its GPU speaks the older protocol"
        )

    def _make_group(self, lease: Lease, slice_: Slice, held: MPSAssignment) -> None:
        """Give the lease a control group, unless it could not be created; one that
        exists has its limit of now, as far as the helper allows.
        """
        if lease.id in self._groups and lease.up_to is not None:
            self._adjust_group(lease, slice_, held)
        if lease.id in self._groups or lease.id in self._no_group:
            return
        try:
            self._dmem.hold(held.limit.name, slice_.device_id, slice_.memory_bytes)
            self._groups[lease.id] = held.limit.name
        except ProviderError as error:
            self._no_group[lease.id] = error.message

    def _drop_group(self, group: str) -> None:
        try:
            self._dmem.drop(group)
        except ProviderError as error:
            log.warning("the control group of a lease stays: %s", error.message)

    def _unheld(
        self, lease: Lease, reason: str, environment: Mapping[str, str] | None = None
    ) -> EnforcementHandle:
        """Nothing but caps; what the lease says of that already stays."""
        self._prepared[lease.id] = (lease, False)
        known = lease.condition(ConditionKind.ENFORCEMENT_REDUCED)
        conditions = _reduced(reason)
        if not conditions and known is not None:
            conditions = (known,)
        return EnforcementHandle(environment=environment or {}, conditions=conditions)

    def _unfit(self, lease: Lease, slices: Sequence[Slice]) -> str:
        """Why a lease cannot be held by MPS, which gives a process one GPU, and serves
        other users by daemons of root alone.
        """
        holder = lease.holder
        if self._serves_host and uid_behind(holder) is None:
            return f"{holder.user} is no user of this host, whose pipes of MPS could be"
        if self._serves_others_not and uid_behind(holder) != os.getuid():
            return "MPS serves several users where the host broker runs as root alone"
        if len(slices) > 1:
            return "a process can use the MPS server of one GPU, and this lease has several"
        return (
            "its holder has another lease, which MPS would hide"
            if self._others(lease)
            else ""
        )

    def _check_holder(self, lease: Lease) -> None:
        """A process is a client of one MPS server for one lease, or of none."""
        for other, is_under_mps in self._others(lease):
            if is_under_mps:
                message = f"MPS holds this process to its lease {other.id}; release that one, or ask for both in one"
                raise PrepareFailed(message, lease_id=lease.id)

    def _others(self, lease: Lease) -> list[tuple[Lease, bool]]:
        known = tuple(self._prepared.values())  # at once: other threads prepare, too
        return [
            entry
            for entry in known
            if entry[0].holder.is_same(lease.holder) and entry[0].id != lease.id
        ]


def _reduced(reason: str) -> Conditions:
    if not reason:
        return ()
    kind = ConditionKind.ENFORCEMENT_REDUCED
    return (new_condition(kind, reason, time.time()),)
