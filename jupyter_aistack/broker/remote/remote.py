"""The host's broker, for the kernels of this user."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.condition import Condition
from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.kernel_report import KernelReport
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.wire.preparations import CONDITION, PREPARATION
from jupyter_aistack.core.wire.protocol import SpokenFor
from jupyter_aistack.core.wire.records import EVENT, LEASE, REQUEST
from jupyter_aistack.system.broker_socket import BrokerSocket

from ..memory_watchdog import MemoryBreach
from .port import DeviceHiding
from .records import BREACH, KERNEL_REPORT

JSON = dict[str, Any]


class RemoteBroker:
    """The host's broker; see `KernelBroker`. It knows the user by the socket.

    Args:
        socket: the connections to it.
    """

    def __init__(self, socket: BrokerSocket) -> None:
        self._socket = socket
        self._user = ""

    @property
    def user(self) -> str:
        if not self._user:
            self._user = self._call("whoami")["user"]
        return self._user

    def _call(
        self, verb: str, *, spoken_for: SpokenFor | None = None, **payload: Any
    ) -> JSON:
        return self._socket.call(verb, payload, spoken_for)

    # -- getting -----------------------------------------------------------------------

    def acquire(
        self, kernel_id: str, spec: str, *, queue: str, up_to: str, label: str
    ) -> None:
        self._call(
            "acquire",
            spoken_for=SpokenFor(pid=os.getpid(), kernel_id=kernel_id, label=label),
            spec=spec,
            queue=queue,
            up_to=up_to,
        )

    def leases(self) -> tuple[Lease, ...]:
        return _leases(self._call("kernel_leases"))

    def recent_leases(self) -> tuple[Lease, ...]:
        return _leases(self._call("kernel_leases", ended=True))

    def requests(self) -> tuple[Request, ...]:
        waiting = self._call("kernel_requests")["requests"]
        return tuple(map(REQUEST.from_dict, waiting))

    def reason(self, request_id: str) -> str:
        for waiting in self._call("queue")["queue"]:
            if waiting["id"] == request_id:
                return str(waiting["reason"])
        return ""

    def prepare(self, lease: Lease) -> Preparation:
        answer = self._call("prepare", lease_id=lease.id)
        return PREPARATION.from_dict(answer["prepared"])

    def device_hiding(self) -> DeviceHiding:
        answer = self._call("device_hiding")
        return DeviceHiding(
            has_gpus=answer["has_gpus"], environment=answer["environment"]
        )

    # -- while a process runs ----------------------------------------------------------

    def bind(self, lease: Lease, *, pid: int, root_pid: int | None) -> Lease:
        bound = self._call(
            "bind_kernel",
            lease_id=lease.id,
            token=lease.token,
            pid=pid,
            root_pid=root_pid,
        )
        return LEASE.from_dict(bound)

    def activate(
        self,
        lease: Lease,
        *,
        verified: bool | None,
        condition: Condition | None = None,
    ) -> Lease:
        told = None if condition is None else CONDITION.to_dict(condition)
        activated = self._call(
            "activate",
            lease_id=lease.id,
            token=lease.token,
            verified=verified,
            condition=told,
        )
        return LEASE.from_dict(activated)

    def is_listed(self, lease: Lease, pid: int) -> bool | None:
        listed: bool | None = self._call("listed", lease_id=lease.id, pid=pid)["listed"]
        return listed

    def processes_on_device(
        self, leases: Sequence[Lease], pid: int
    ) -> RemoteDeviceProcesses:
        return RemoteDeviceProcesses(self._socket, leases, pid)

    # -- giving back -------------------------------------------------------------------

    def cancel(self, request_id: str) -> None:
        self._call("cancel", request_id=request_id)

    def release(self, lease: Lease) -> None:
        self._call("release", lease_id=lease.id)

    # -- regularly ---------------------------------------------------------------------

    def run_cycle(self) -> None:
        """Nothing: the broker runs a cycle with each change."""

    def maintain(self) -> None:
        """Nothing: the broker does so every few seconds."""

    def report(self, report: KernelReport) -> tuple[MemoryBreach, ...]:
        told = KERNEL_REPORT.to_dict(report)
        answer = self._call("report_kernels", **told)
        return tuple(map(BREACH.from_dict, answer["breaches"]))

    def breach_handled(self, lease: Lease, words: str) -> None:
        self._call("breach_handled", lease_id=lease.id, words=words)

    def breach_postponed(self, lease: Lease) -> None:
        self._call("breach_postponed", lease_id=lease.id)

    def record_first_use(self) -> None:
        """Nothing: the broker measures."""

    def events(self, after: int, limit: int) -> tuple[Event, ...]:
        told = self._call("events", after=after, limit=limit)["events"]
        return tuple(map(EVENT.from_dict, told))


class RemoteDeviceProcesses:
    """A process and those below it, as the host's broker sees them on its devices; see
    `ProcessesOnDevice`.

    Args:
        socket: the connections to the broker.
        leases: what they use.
        pid: the process.
    """

    def __init__(self, socket: BrokerSocket, leases: Sequence[Lease], pid: int) -> None:
        self._socket = socket
        self._payload = {"lease_ids": [lease.id for lease in leases], "pid": pid}

    def _call(self, verb: str, **payload: Any) -> JSON:
        return self._socket.call(verb, {**self._payload, **payload})

    def has_started(self) -> bool:
        return bool(self._call("device_use")["has_started"])

    def is_working(self, since: float) -> bool | None:
        answer: bool | None = self._call("device_use", since=since)["is_working"]
        return answer

    def clients(self) -> frozenset[int]:
        return frozenset(self._call("device_clients")["clients"])

    def terminate(self, pid: int) -> None:
        self._call("terminate_client", client_pid=pid)


def _leases(answer: Mapping[str, Any]) -> tuple[Lease, ...]:
    return tuple(map(LEASE.from_dict, answer["leases"]))
