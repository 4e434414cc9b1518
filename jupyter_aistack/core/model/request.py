"""A request for slices, and who holds what it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property

from .process import ProcessIdentity
from .spec import Spec


class RequestState(StrEnum):
    QUEUED = "queued"
    GRANTED = "granted"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class HolderKind(StrEnum):
    KERNEL = "kernel"
    WORKER = "worker"
    RUN = "run"
    PROCESS = "process"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who uses a lease.

    Attributes:
        kind: a Jupyter kernel, a Dask worker, a training run, or any other process.
        id: kernel id, worker name, run id, or ``pid-<pid>``.
        user: login name of the owner.
        host: id of the machine it runs on.
        host_name: what that machine called itself there, for people; empty where it is
            `host`.
        pid: process whose life is the lease's life; None until it is launched.
        pid_started_at: when that process started, in seconds since the host did: a
            recycled pid is not mistaken for it, and setting the clock changes nothing.
        boot_id, pid_namespace: where `pid` and `root_pid` are counted, as those of
            `ProcessIdentity`.
        root_pid: root of the process tree whose use is charged to the lease; `pid` when
            None.
        label: what people call it, e.g. the notebook's path. Never used to decide
            anything.
        parent: id of the kernel this holder belongs to; empty for none.
        allowance: the devices that may be granted to it, where its broker's launcher may
            use fewer than the host has, as `Provider.allowance` names them; empty for
            all.
    """

    kind: HolderKind
    id: str
    user: str
    host: str
    pid: int | None = None
    pid_started_at: float | None = None
    root_pid: int | None = None
    label: str = ""
    parent: str = ""
    host_name: str = ""
    boot_id: str = ""
    pid_namespace: int | None = None
    allowance: str = ""

    @property
    def shown_host(self) -> str:
        """What people call the machine it runs on."""
        return self.host_name or self.host

    def is_same(self, other: Holder) -> bool:
        """Whether both are one holder: an id says who only together with the user and
        the kind.
        """
        is_of_user = self.user == other.user
        is_called_alike = self.id == other.id
        return is_of_user and is_called_alike and self.kind is other.kind

    @property
    def process(self) -> ProcessIdentity | None:
        """The process whose life is the lease's life; None until it is launched."""
        if self.pid is None:
            return None
        return ProcessIdentity(
            pid=self.pid,
            started=self.pid_started_at,
            boot_id=self.boot_id,
            pid_namespace=self.pid_namespace,
        )

    def is_kernel(self, user: str, kernel_id: str) -> bool:
        """Whether it is that kernel of that user, and nothing that is only called so."""
        is_of_user = self.user == user
        is_called_so = self.id == kernel_id
        return is_of_user and is_called_so and self.kind is HolderKind.KERNEL

    def belongs_to(self, user: str, kernel_id: str) -> bool:
        """Whether it is that kernel, one of its workers or runs, or a process that it
        started.
        """
        if self.parent != kernel_id:
            return self.is_kernel(user, kernel_id)
        return self.user == user

    def ends_with(self, user: str, kernel_id: str) -> bool:
        """Whether its lease ends with a kernel: it is the kernel, or a worker or a run
        of it. A process that the kernel started may outlive it.
        """
        is_child = self.kind is HolderKind.PROCESS
        return self.belongs_to(user, kernel_id) and not is_child


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request for slices, as the ledger keeps it.

    Attributes:
        id: unique, opaque.
        spec: what is wanted.
        holder: who wants it.
        queue: where it waits.
        priority: higher is served first within its queue.
        lease_seconds: how long it is wanted; None for as long as the holder lives.
        patience_seconds: how long it may wait before it is rejected; 0 is now or never,
            None is for ever.
        preemptible: its lease may be ended for others.
        up_to: the share of each device that its lease may use while nobody else needs
            it; None for what is granted.
        submitted_at: seconds since the epoch.
        state: where it stands.
        reason: why it waits or was rejected, in one sentence.
        code: the error that its rejection means, as the name of its class; empty while
            it is not rejected.
        lease_id: the lease it became, once granted.
        idempotency_key: the asker's own name for it, unlike that of any other of its
            requests: who asks again, for want of an answer, gets the same request;
            empty for none.
    """

    id: str
    spec: Spec
    holder: Holder
    queue: str = "default"
    priority: int = 0
    lease_seconds: float | None = None
    patience_seconds: float | None = None
    preemptible: bool = False
    up_to: Fraction | None = None
    submitted_at: float
    state: RequestState = RequestState.QUEUED
    reason: str = ""
    code: str = ""
    lease_id: str = ""
    idempotency_key: str = ""

    @cached_property
    def arrival(self) -> tuple[float, str]:
        """What tells who came first: lower for the earlier. Worked out once for each
        request, so that a long queue can be sorted by it in each cycle.
        """
        return self.submitted_at, self.id

    @cached_property
    def kind(self) -> tuple[object, ...]:
        """Equal only for requests that differ in nothing but their time, their holder's
        name and their patience. Worked out once for each request.
        """
        holder = self.holder
        return (
            self.queue,
            holder.user,
            self.spec.text,
            holder.host,
            holder.allowance,
            self.lease_seconds,
            self.preemptible,
            str(self.up_to),
            self.priority,
        )
