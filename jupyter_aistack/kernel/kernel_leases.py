"""The leases of one kernel, kept true against the broker. Synchronous; call it in a
thread, never in an event loop.

The ledger is asked each time: leases a kernel took with ``%gpu request``, or that were
reserved for its id before it started, are its own as much as the lease its
kernelspec asks for.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable

from jupyter_aistack.broker.remote.port import KernelBroker, ProcessesOnDevice
from jupyter_aistack.core.model.condition import Condition
from jupyter_aistack.core.model.device import SliceKind
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.request import Holder, Request
from jupyter_aistack.exceptions import (
    InvalidTransition,
    LeaseError,
    NotEnforced,
    PrepareFailed,
)
from jupyter_aistack.system.processes import is_alive

from .allocation import KernelAllocation
from .combine import combine_preparations


class KernelLeases:
    """One kernel's leases and its waiting request.

    While its process runs, that process is the holder of its leases, and they end with
    it. While there is none (before the first launch, between two lives of a restarted
    kernel) the Jupyter server's process stands in.

    Args:
        broker: gives the broker, or raises `AIStackError`; called in a thread.
        kernel_id: the kernel.
    """

    def __init__(self, broker: Callable[[], KernelBroker], kernel_id: str) -> None:
        self._broker = broker
        self.kernel_id = kernel_id
        self._lock = threading.RLock()
        self._pid: int | None = None

    # -- getting -----------------------------------------------------------------------

    def acquire(
        self, spec: str, *, queue: str, up_to: str, label: str
    ) -> KernelAllocation:
        """What the kernel holds already, or what `spec` gets it; calling it again
        changes nothing.

        Raises:
            InvalidRequest, Refused: `spec` or `queue` make no sense here, or policy
                does not allow them.
            AIStackError: something of ours failed.
        """
        with self._lock:
            if spec:
                self._broker().acquire(
                    self.kernel_id, spec, queue=queue, up_to=up_to, label=label
                )
            return self.prepare()

    def prepare(self) -> KernelAllocation:
        """What the kernel holds or waits for now, its slices made ready."""
        with self._lock:
            broker = self._broker()
            leases = []
            parts = []
            why_none = ""
            for lease in self._leases():
                try:
                    parts.append(broker.prepare(lease))
                    leases.append(self._kept(lease))
                except (PrepareFailed, LeaseError) as error:
                    why_none = error.message
            waiting = self._waiting()
            hiding = broker.device_hiding()
            return KernelAllocation(
                leases=tuple(leases),
                prepared=combine_preparations(parts) if parts else None,
                request=waiting,
                has_gpus=hiding.has_gpus,
                hidden=hiding.environment,
                why_none=why_none or (self._why_queued(waiting) if waiting else ""),
            )

    def poll(self) -> KernelAllocation:
        """Run a cycle of the broker, then `prepare` what that has granted."""
        self._broker().run_cycle()
        return self.prepare()

    def _kept(self, lease: Lease) -> Lease:
        """The lease, held by this process if its holder is not running (any more)."""
        if self._pid is not None or lease.holder.pid == os.getpid():
            return lease
        return self._broker().bind(
            lease, pid=os.getpid(), root_pid=lease.holder.root_pid
        )

    def _leases(self) -> list[Lease]:
        """Leases of the kernel itself; those of its workers and runs end with their own
        processes.
        """
        return [
            lease
            for lease in self._broker().leases()
            if self._is_own(lease.holder) and lease.state is not LeaseState.RELEASING
        ]

    def _waiting(self) -> Request | None:
        for request in self._broker().requests():
            if self._is_own(request.holder):
                return request
        return None

    def _why_queued(self, request: Request) -> str:
        """Why it waits, as far as it is among the first."""
        return self._broker().reason(request.id)

    def _is_own(self, holder: Holder) -> bool:
        return holder.is_kernel(self._broker().user, self.kernel_id)

    # -- while a process runs ----------------------------------------------------------

    def bind(self, pid: int) -> None:
        """The kernel's process runs: its leases live and die with it. A process that
        has died already changes nothing.
        """
        with self._lock:
            if is_alive(pid, None):
                self._pid = pid
                self._bind_all(pid, root_pid=pid)

    def hold_for_restart(self, pid: int) -> None:
        """Process `pid` of the kernel ends or has ended: keep its leases, in this
        process's name, until the kernel is launched again.
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
                self._broker().bind(lease, pid=pid, root_pid=root_pid)

    def refresh(self, *, is_alone: bool) -> bool:
        """Look after leases and the waiting request of a running kernel; whether a
        request still waits.

        Args:
            is_alone: no server's broker renews leases and grants requests, so do it
                here.
        """
        with self._lock:
            if is_alone:
                self._broker().maintain()
            if self._pid is not None and self._has_stand_in():
                self._bind_all(self._pid, root_pid=self._pid)
            return self._waiting() is not None

    def _has_stand_in(self) -> bool:
        """Whether a lease was granted while the kernel ran, to this process, which
        asked for it.
        """
        return any(lease.holder.pid == os.getpid() for lease in self._leases())

    def activate(
        self,
        allocation: KernelAllocation,
        *,
        verified: bool | None,
        condition: Condition | None,
    ) -> None:
        """Write down that the leases are in use, and what verification found; they may
        be revoked for it.
        """
        for lease in allocation.leases:
            # It ended before its check did, or is suspended, or is revoked now: the
            # kernel is notified, and goes on.
            with contextlib.suppress(LeaseError, InvalidTransition, NotEnforced):
                self._broker().activate(lease, verified=verified, condition=condition)

    def is_client(self, allocation: KernelAllocation, pid: int) -> bool | None:
        """Whether the server that enforces the leases knows a process; None where no
        server reports it.
        """
        answers = [self._broker().is_listed(lease, pid) for lease in allocation.leases]
        known = [is_listed for is_listed in answers if is_listed is not None]
        return any(known) if known else None

    def on_device(
        self, pid: int, before: Iterable[Lease] = ()
    ) -> ProcessesOnDevice | None:
        """Process `pid` of the kernel as the GPUs of its leases see it, those of its
        workers too; None without any.

        A lease that it has asked for itself, or was started with, may have ended and
        the process use its device still.

        Args:
            before: leases it was started with.
        """
        broker = self._broker()
        family = (
            lease
            for lease in broker.leases()
            if lease.holder.belongs_to(broker.user, self.kernel_id)
        )
        leases = {
            lease.id: lease for lease in (*before, *self._leases_of(pid), *family)
        }
        on_gpu = [lease for lease in leases.values() if _is_on_gpu(lease)]
        return broker.processes_on_device(on_gpu, pid) if on_gpu else None

    def _leases_of(self, pid: int) -> list[Lease]:
        """Leases that a process of the kernel has or had, as far as they are among the
        newest of the host.
        """
        return [
            lease
            for lease in self._broker().recent_leases()
            if self._is_own(lease.holder)
            and pid in (lease.holder.pid, lease.holder.root_pid)
        ]

    # -- giving back -------------------------------------------------------------------

    def release(self, pid: int | None = None) -> None:
        """Give everything back and leave the queue, for the kernel and what belongs to
        it. Twice is once.

        Args:
            pid: only if no other process has been bound since this process.
        """
        with self._lock:
            if pid is not None and self._pid not in (None, pid):
                return
            self._pid = None
            broker = self._broker()
            # Requests first: a lease that is released would go to the next request of
            # the same kernel.
            for request in broker.requests():
                if request.holder.ends_with(broker.user, self.kernel_id):
                    broker.cancel(request.id)
            for lease in broker.leases():
                if lease.holder.ends_with(broker.user, self.kernel_id):
                    with contextlib.suppress(LeaseError):  # it ended meanwhile
                        broker.release(lease)


def _is_on_gpu(lease: Lease) -> bool:
    return any(slice_.kind is not SliceKind.CPU for slice_ in lease.slices)
