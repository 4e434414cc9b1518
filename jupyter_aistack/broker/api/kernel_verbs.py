"""Verbs for those who start and watch kernels: a Jupyter server, or a program that runs
notebooks, at the host's broker.

They are about the caller's own user, and processes that they name must be that user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyter_aistack.core.model.kernel_report import KernelReport, Rename
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.preparations import PREPARATION
from jupyter_aistack.core.wire.records import LEASE
from jupyter_aistack.core.wire.values import (
    flag_field,
    integer_field,
    number_field,
    request_to_dict,
    text_field,
)
from jupyter_aistack.exceptions import InvalidRequest, LeaseError

from ..remote.embedded import EmbeddedBroker
from ..remote.port import ProcessesOnDevice
from ..remote.records import BREACH
from .base import Payload, Verb, VerbGroup
from .caller import MAX_LABEL, Caller

MAX_NAMES = 10_000
"""Kernels, leases or names in one call."""


class KernelVerbs(VerbGroup):
    """``whoami``, and what a launcher of kernels needs; see `KernelBroker`."""

    def verbs(self) -> dict[str, Verb]:
        return {
            "whoami": self._whoami,
            "acquire": self._acquire,
            "kernel_leases": self._kernel_leases,
            "kernel_requests": self._kernel_requests,
            "prepare": self._prepare,
            "device_hiding": self._device_hiding,
            "bind_kernel": self._bind_kernel,
            "device_use": self._device_use,
            "device_clients": self._device_clients,
            "terminate_client": self._terminate_client,
            "report_kernels": self._report_kernels,
            "breach_handled": self._breach_handled,
            "breach_postponed": self._breach_postponed,
        }

    def _of(self, caller: Caller) -> EmbeddedBroker:
        """The broker, for the kernels of this caller's user."""
        return EmbeddedBroker(
            self._broker,
            user=caller.user,
            groups=self._access.groups_of(caller),
            pid=caller.pid,
        )

    def _whoami(self, payload: Payload, caller: Caller) -> JSON:
        return {"user": caller.user}

    # -- getting -----------------------------------------------------------------------

    def _acquire(self, payload: Payload, caller: Caller) -> JSON:
        if not caller.kernel_id or caller.pid is None:
            raise InvalidRequest(
                "caller: name the kernel that is to be started, and who starts it",
                field="caller",
            )
        self._of(caller).acquire(
            caller.kernel_id,
            text_field(payload, "spec"),
            queue=text_field(payload, "queue", ""),
            up_to=text_field(payload, "up_to", ""),
            label=caller.label[:MAX_LABEL],
        )
        return {}

    def _kernel_leases(self, payload: Payload, caller: Caller) -> JSON:
        broker = self._of(caller)
        is_all = flag_field(payload, "ended")
        leases = broker.recent_leases() if is_all else broker.leases()
        return {"leases": [LEASE.to_dict(lease) for lease in leases]}

    def _kernel_requests(self, payload: Payload, caller: Caller) -> JSON:
        requests = self._of(caller).requests()
        return {"requests": [request_to_dict(request) for request in requests]}

    def _prepare(self, payload: Payload, caller: Caller) -> JSON:
        lease = self._owned("prepare", payload, caller)
        prepared = self._of(caller).prepare(lease)
        self._broker.answer(lease.request_id)
        return {"prepared": PREPARATION.to_dict(prepared)}

    def _device_hiding(self, payload: Payload, caller: Caller) -> JSON:
        hiding = self._of(caller).device_hiding()
        return {"has_gpus": hiding.has_gpus, "environment": dict(hiding.environment)}

    # -- while a process runs ----------------------------------------------------------

    def _bind_kernel(self, payload: Payload, caller: Caller) -> JSON:
        """Tie a lease to a kernel's process, or to who will start it again."""
        lease = self._with_token(payload, caller)
        pid = self._own_process(payload, "pid", caller)
        root_pid = None
        if payload.get("root_pid") is not None:
            root_pid = self._own_process(payload, "root_pid", caller)
        bound = self._of(caller).bind(lease, pid=pid, root_pid=root_pid)
        return LEASE.to_dict(bound)

    def _with_token(self, payload: Payload, caller: Caller) -> Lease:
        """The lease under ``lease_id``, known by the token that is in force."""
        lease = self._owned("bind_kernel", payload, caller)
        if integer_field(payload, "token") != lease.token:
            raise LeaseError(f"the lease {lease.id} has moved on", lease_id=lease.id)
        return lease

    def _device_use(self, payload: Payload, caller: Caller) -> JSON:
        """Whether a process or those below it have used the devices of some leases, or
        with ``since``, whether a device has worked for them since then.
        """
        processes = self._processes("device_use", payload, caller)
        since = number_field(payload, "since", most=1e11)
        if since is None:
            return {"has_started": processes.has_started()}
        return {"is_working": processes.is_working(since)}

    def _device_clients(self, payload: Payload, caller: Caller) -> JSON:
        processes = self._processes("device_clients", payload, caller)
        return {"clients": sorted(processes.clients())}

    def _terminate_client(self, payload: Payload, caller: Caller) -> JSON:
        """End a process's work through the server that enforces its lease."""
        processes = self._processes("terminate_client", payload, caller)
        processes.terminate(self._own_process(payload, "client_pid", caller))
        return {}

    def _processes(
        self, verb: str, payload: Payload, caller: Caller
    ) -> ProcessesOnDevice:
        """The process under ``pid`` and those below it, on the devices of the leases
        under ``lease_ids``.
        """
        pid = self._own_process(payload, "pid", caller)
        leases = [
            self._owned(verb, {"lease_id": name}, caller)
            for name in sorted(texts_field(payload, "lease_ids"))
        ]
        return self._of(caller).processes_on_device(leases, pid)

    def _own_process(self, payload: Payload, name: str, caller: Caller) -> int:
        """The process under `name`: it must be one of the caller's user, or have ended.

        Raises:
            InvalidRequest: it is no number.
            PermissionDenied: it is another user's.
        """
        pid = integer_field(payload, name, least=1)
        self._access.check_process(pid, caller)
        return pid

    # -- regularly ---------------------------------------------------------------------

    def _report_kernels(self, payload: Payload, caller: Caller) -> JSON:
        """A Jupyter server tells of its kernels, and is told what of theirs holds more
        memory than its lease has.
        """
        report = KernelReport(
            running=texts_field(payload, "running"),
            busy=texts_field(payload, "busy"),
            gone=texts_field(payload, "gone"),
            renames=_renames(payload.get("renames", {})),
        )
        broker = self._of(caller)
        broker.take_report(report)
        breaches = broker.breaches(report)
        return {"breaches": [BREACH.to_dict(breach) for breach in breaches]}

    def _breach_handled(self, payload: Payload, caller: Caller) -> JSON:
        lease = self._owned("breach_handled", payload, caller)
        words = printable(text_field(payload, "words"))[:MAX_LABEL]
        self._of(caller).breach_handled(lease, words)
        return {}

    def _breach_postponed(self, payload: Payload, caller: Caller) -> JSON:
        lease = self._owned("breach_postponed", payload, caller)
        self._of(caller).breach_postponed(lease)
        return {}


def texts_field(payload: Mapping[str, Any], name: str) -> frozenset[str]:
    """The texts under `name`, none when absent; raises `InvalidRequest` when it is no
    list of texts.
    """
    values = payload.get(name, [])
    is_list = isinstance(values, list) and len(values) <= MAX_NAMES
    if not is_list or not all(isinstance(value, str) for value in values):
        raise InvalidRequest(
            f"{name}: expected a list of at most {MAX_NAMES} texts", field=name
        )
    return frozenset(value[:MAX_LABEL] for value in values)


def _renames(told: object) -> dict[str, Rename]:
    """Notebooks that are called otherwise now, by kernel id."""
    if not isinstance(told, Mapping) or len(told) > MAX_NAMES:
        raise InvalidRequest(
            "renames: expected an object with a notebook's names by kernel id",
            field="renames",
        )
    renames = {}
    for kernel_id, rename in told.items():
        if not isinstance(rename, Mapping):
            raise InvalidRequest(
                f"renames: expected former and label, got {rename!r:.64}",
                field="renames",
            )
        renames[str(kernel_id)[:MAX_LABEL]] = Rename(
            former=texts_field(rename, "former"),
            label=printable(text_field(rename, "label"))[:MAX_LABEL],
        )
    return renames
