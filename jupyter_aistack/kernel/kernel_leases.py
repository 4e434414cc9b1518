"""What one kernel holds, kept true against the broker. Synchronous; call it in a
thread, never in an event loop.

The ledger is asked each time: leases a kernel took with ``%gpu request``, or that were
reserved for its id before it
started, are its own as much as the one its kernelspec asks for.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.condition import Condition
from jupyter_aistack.core.model.device import DeviceKind, SliceKind
from jupyter_aistack.core.model.device_state import reset_for_new_process
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.request import Holder, HolderKind, Request, RequestState
from jupyter_aistack.exceptions import (
    InvalidRequest,
    InvalidTransition,
    LeaseError,
    LedgerUnavailable,
    NotEnforced,
    PrepareFailed,
    ProviderError,
)
from jupyter_aistack.providers.base import Provider
from jupyter_aistack.system.processes import groups_of, is_alive

from .environment import combined
from .process_control import DeviceProcesses

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker

RECENT_LEASES = 200
"""So many of a host's newest leases are looked through for those of a process that is
to be ended.
"""

_brokers: dict[tuple[str, str], Broker] = {}
_building = threading.Lock()


def own_broker() -> Broker:
    """This process's own broker, for kernels launched without a Jupyter server
    (nbclient, papermill).

    Raises:
        LedgerError: it cannot be built; a setting that makes no sense is no fault of a
            kernel's request.
    """
    from jupyter_aistack.config import load_settings

    key = (
        os.environ.get("AISTACK_LEDGER", ""),
        os.environ.get("AISTACK_PROVIDERS", ""),
    )
    with _building:
        try:
            if key not in _brokers:
                _brokers[key] = load_settings().build_broker()
            return _brokers[key]
        except InvalidRequest as error:
            raise LedgerUnavailable(
                f"the broker could not be started: {error.message}"
            ) from error


@dataclass(frozen=True, kw_only=True)
class KernelAllocation:
    """What a kernel has at one moment.

    Attributes:
        leases: its live leases.
        prepared: what its process must be given; None when it holds nothing.
        request: its waiting request, if any.
        has_gpus: whether the host has real GPUs that are leased out; None when that
            could not be found out.
        has_amd: whether some of them are AMD's.
        note: why it has no slice though one was asked for.
    """

    leases: tuple[Lease, ...] = ()
    prepared: Preparation | None = None
    request: Request | None = None
    has_gpus: bool | None = None
    has_amd: bool = False
    note: str = ""

    @property
    def is_waiting(self) -> bool:
        return self.request is not None and self.request.state is RequestState.QUEUED


class KernelLeases:
    """One kernel's leases and its waiting request.

    While its process runs, that process is the holder of its leases, and they end with
    it. While there is none (before the first launch, between two lives of a restarted
    kernel) the Jupyter server's process stands in.

    Args:
        broker: gives the broker, or raises `AIStackError`; called in a thread.
        kernel_id: the kernel.
    """

    def __init__(self, broker: Callable[[], Broker], kernel_id: str) -> None:
        self._broker = broker
        self.kernel_id = kernel_id
        self._lock = threading.RLock()
        self._pid: int | None = None

    # -- getting -----------------------------------------------------------------------

    def acquire(self, spec: str, *, queue: str, label: str) -> KernelAllocation:
        """What the kernel holds already, or what `spec` gets it; calling it again
        changes nothing.

        Raises:
            InvalidRequest, Refused: `spec` or `queue` make no sense here, or policy
                does not allow them.
            AIStackError: something of ours failed.
        """
        with self._lock:
            broker = self._broker()
            if spec and not self._leases() and self._waiting() is None:
                holder = self._holder(label)
                broker.submit(spec, holder, queue=queue, groups=groups_of(holder.user))
            return self.look()

    def look(self) -> KernelAllocation:
        """What the kernel holds or waits for now, its slices made ready."""
        with self._lock:
            broker = self._broker()
            leases = []
            parts = []
            note = ""
            for lease in self._leases():
                try:
                    parts.append(broker.prepare(lease))
                    leases.append(self._kept(lease))
                except (PrepareFailed, LeaseError) as error:
                    note = error.message
            waiting = self._waiting()
            gpus = [
                device
                for device in broker.inventory().of_kind(DeviceKind.GPU)
                if not device.simulated
            ]
            return KernelAllocation(
                leases=tuple(leases),
                prepared=combined(parts) if parts else None,
                request=waiting,
                has_gpus=bool(gpus),
                has_amd=any(device.vendor == "amd" for device in gpus),
                note=note or (self._why(waiting) if waiting else ""),
            )

    def await_turn(self) -> KernelAllocation:
        """Let the broker take its turn, then `look`."""
        self._broker().cycle()
        return self.look()

    def _kept(self, lease: Lease) -> Lease:
        """The lease, held by this process if its holder is not running (any more)."""
        if self._pid is not None or lease.holder.pid == os.getpid():
            return lease
        return self._broker().bind(
            lease.id, lease.token, pid=os.getpid(), root_pid=lease.holder.root_pid
        )

    def _holder(self, label: str) -> Holder:
        from jupyter_aistack.system.processes import current_user

        host = self._broker().host
        user = current_user()
        return Holder(
            kind=HolderKind.KERNEL,
            id=self.kernel_id,
            user=user,
            host=host,
            pid=os.getpid(),
            label=label,
        )

    def _leases(self) -> list[Lease]:
        """Leases of the kernel itself; those of its workers and runs end with their own
        processes.
        """
        found = (
            lease for lease in self._broker().leases() if self._is_own(lease.holder)
        )
        return [lease for lease in found if lease.state is not LeaseState.RELEASING]

    def _waiting(self) -> Request | None:
        return next(
            (request for request in self._requests() if self._is_own(request.holder)),
            None,
        )

    def _requests(self) -> tuple[Request, ...]:
        broker = self._broker()
        return broker.ledger.read(broker.host, broker.clock()).requests

    def _why(self, request: Request) -> str:
        """Why it waits, as far as it is among the first."""
        return next(
            (
                one.reason
                for one in self._broker().waiting()
                if one.request.id == request.id
            ),
            "",
        )

    def _is_own(self, holder: Holder) -> bool:
        return holder.kind is HolderKind.KERNEL and holder.id == self.kernel_id

    # -- keeping -----------------------------------------------------------------------

    def bind(self, pid: int) -> None:
        """The kernel's process runs: its leases live and die with it. One that has died
        already changes nothing.
        """
        with self._lock:
            if is_alive(pid, None):
                self._pid = pid
                self._bind_all(pid, root_pid=pid)

    def hold(self, pid: int) -> None:
        """Process `pid` of the kernel ends or has ended: keep its leases until the
        kernel is launched again.
        """
        with self._lock:
            if self._pid in (None, pid):
                self._pid = None
                self._bind_all(os.getpid(), root_pid=pid)

    def _bind_all(self, pid: int, *, root_pid: int) -> None:
        for lease in self._leases():
            if (lease.holder.pid, lease.holder.root_pid) == (pid, root_pid):
                continue
            with contextlib.suppress(LeaseError):  # it ended just now
                self._broker().bind(lease.id, lease.token, pid=pid, root_pid=root_pid)
                if lease.residence is not None and lease.holder.root_pid not in (
                    None,
                    root_pid,
                ):
                    self._start_anew(lease)

    def _start_anew(self, lease: Lease) -> None:
        """Its process is another one: what was suspended of the old one is gone with
        it.
        """
        broker = self._broker()
        broker.update_device_state(
            lease.id,
            lease.token,
            lambda residence: reset_for_new_process(residence, broker.clock()),
        )

    def follow(self, *, is_alone: bool) -> bool:
        """Look after leases and the waiting request of a running kernel; whether one
        still waits.

        Args:
            is_alone: no server's broker renews leases and grants requests, so do it
                here.
        """
        with self._lock:
            if is_alone:
                self._broker().maintain()
            if self._pid is not None:
                stand_in = [
                    lease for lease in self._leases() if lease.holder.pid == os.getpid()
                ]
                if stand_in:  # granted while it ran, to the process that asked for it
                    self._bind_all(self._pid, root_pid=self._pid)
            return self._waiting() is not None

    def activate(
        self,
        holding: KernelAllocation,
        *,
        verified: bool | None,
        condition: Condition | None,
    ) -> None:
        """Write down that the leases are in use, and what verification found; they may
        be revoked for it.
        """
        for lease in holding.leases:
            # It ended before its check did, or is suspended, or is revoked now: the
            # kernel is told, and goes on.
            with contextlib.suppress(LeaseError, InvalidTransition, NotEnforced):
                self._broker().activate(
                    lease.id, lease.token, verified=verified, condition=condition
                )

    def is_client(self, holding: KernelAllocation, pid: int) -> bool | None:
        """Whether the server that holds the leases to their size knows a process; None
        where nobody says.
        """
        answers = [self._broker().clients(lease) for lease in holding.leases]
        known = [clients for clients in answers if clients is not None]
        return any(pid in clients for clients in known) if known else None

    def on_device(
        self, pid: int, before: Iterable[Lease] = ()
    ) -> DeviceProcesses | None:
        """Process `pid` of the kernel as the GPUs of its leases see it, those of its
        workers too; None without any.

        A lease that it has asked for itself, or was started with, may have ended and
        the process use its device still.

        Args:
            before: leases it was started with.
        """
        broker = self._broker()
        found = {lease.id: lease for lease in before} | {
            lease.id: lease for lease in self._had(pid)
        }
        found |= {
            lease.id: lease
            for lease in broker.leases()
            if self._is_of_family(lease.holder)
        }
        on_gpu = [
            one
            for one in found.values()
            if any(piece.kind is not SliceKind.CPU for piece in one.slices)
        ]
        return DeviceProcesses(broker, on_gpu, pid) if on_gpu else None

    def _had(self, pid: int) -> list[Lease]:
        """Leases that a process of the kernel has or had, as far as they are among the
        newest of the host.
        """
        broker = self._broker()
        newest = broker.ledger.leases(
            broker.clock(), host=broker.host, live=False, limit=RECENT_LEASES
        )
        return [
            one
            for one in newest
            if self._is_own(one.holder) and pid in (one.holder.pid, one.holder.root_pid)
        ]

    def _is_of_family(self, holder: Holder) -> bool:
        """Whether it is the kernel, one of its workers or one of its runs."""
        return self.kernel_id in (holder.id, holder.parent)

    # -- giving back -------------------------------------------------------------------

    def release(self, pid: int | None = None) -> None:
        """Give everything back and leave the queue, for the kernel and what belongs to
        it. Twice is once.

        Args:
            pid: only if no other process has been bound since this one.
        """
        with self._lock:
            if pid is not None and self._pid not in (None, pid):
                return
            self._pid = None
            broker = self._broker()
            for request in self._requests():
                if self._is_of_family(request.holder):
                    broker.cancel(request.id)
            for lease in broker.leases():
                if self._is_of_family(lease.holder):
                    with contextlib.suppress(
                        LeaseError
                    ):  # it ended another way meanwhile
                        broker.release(lease.id, lease.token)


def makers(providers: tuple[Provider, ...], host: str) -> frozenset[str]:
    """Who made the host's real GPUs, asked of the drivers alone: without a ledger there
    is nothing else to know.

    Raises:
        ProviderError: none was found, and a driver does not answer.
    """
    found: set[str] = set()
    silent: ProviderError | None = None
    for provider in providers:
        try:
            devices = provider.discover(host)
        except ProviderError as error:
            silent = error
        else:
            found.update(
                d.vendor
                for d in devices
                if d.kind is DeviceKind.GPU and not d.simulated
            )
    if silent is not None and not found:
        raise silent
    return frozenset(found)
