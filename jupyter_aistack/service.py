"""The verbs a client may call, whichever transport carries them: JSON in, JSON out.

The caller is known by the transport (a socket's peer, Jupyter's login), never by what it says of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .broker import Broker
from .core.lease import Lease, LeaseState
from .core.queues import DEFAULT_QUEUE
from .core.request import Holder, HolderKind, Request, RequestState
from .exceptions import InvalidRequest, NotYours, PrepareFailed
from .providers.base import Prepared, Usage
from .wire import (
    event_to_dict,
    host_to_dict,
    integer_field,
    lease_to_dict,
    number_field,
    request_to_dict,
    text_field,
)

JSON = dict[str, Any]
MAX_LABEL = 512


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who is asking.

    Attributes:
        user: login name.
        uid: numeric user id.
        pid: the process that asks; None when it is a browser.
        kernel_id: the kernel that process is, or descends from; empty for none.
        kernel_pid: that kernel's process.
        label: the notebook's path, for people.
        is_admin: may change what belongs to others.
    """

    user: str
    uid: int
    pid: int | None = None
    kernel_id: str = ""
    kernel_pid: int | None = None
    label: str = ""
    is_admin: bool = False

    @property
    def owner_id(self) -> str:
        """Id under which this caller's leases are kept."""
        return self.kernel_id or f"pid-{self.pid}"


class Service:
    """A broker, spoken to in JSON."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._verbs: dict[str, Callable[[Mapping[str, Any], Caller], JSON]] = {
            "host": self._host,
            "leases": self._leases,
            "queue": self._queue,
            "events": self._events,
            "usage": self._usage,
            "request": self._request,
            "wait_for": self._wait_for,
            "cancel": self._cancel,
            "mine": self._mine,
            "activate": self._activate,
            "bind": self._bind,
            "extend": self._extend,
            "release": self._release,
        }

    def call(self, verb: str, payload: Mapping[str, Any], caller: Caller) -> JSON:
        """Answer one call.

        Raises:
            AIStackError: whatever went wrong, one sentence for the user.
        """
        answer = self._verbs.get(verb)
        if answer is None:
            raise InvalidRequest(f"verb: {verb!r} is not known; there is {', '.join(self._verbs)}", field="verb")
        if not isinstance(payload, Mapping):
            raise InvalidRequest("payload: expected an object", field="payload")
        return answer(payload, caller)

    # -- looking ------------------------------------------------------------------------------------------------

    def _host(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return host_to_dict(self.broker.inventory(), self.broker.leases(), self.broker.queues)

    def _leases(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return {"leases": [lease_to_dict(lease) for lease in self.broker.leases(live=not payload.get("all"))]}

    def _queue(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return {"queue": [request_to_dict(r, position) for position, r in enumerate(self.broker.queue(), 1)]}

    def _events(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        after = integer_field({"after": 0, **payload}, "after")
        return {"events": [event_to_dict(event) for event in self.broker.events(after)]}

    def _usage(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        by_lease, by_device = self.broker.usage()
        return {"at": self.broker.clock(), "devices": _usage_dicts(by_device), "leases": _usage_dicts(by_lease)}

    # -- asking -------------------------------------------------------------------------------------------------

    def _request(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        request = self.broker.submit(
            text_field(payload, "spec"),
            self._holder(payload.get("holder"), caller),
            queue=text_field(payload, "queue", DEFAULT_QUEUE),
            lease_seconds=number_field(payload, "lease_seconds", least=1),
            patience_seconds=number_field(payload, "patience_seconds"),
            preemptible=_flag(payload, "preemptible"),
        )
        return self._answer(request)

    def _holder(self, said: object, caller: Caller) -> Holder:
        """The holder of a new request: the caller itself, or a worker or run that belongs to it."""
        said = {} if said is None else said
        if not isinstance(said, Mapping):
            raise InvalidRequest(f"holder: expected an object with kind and id, got {said!r}", field="holder")
        default = HolderKind.KERNEL if caller.kernel_id else HolderKind.PROCESS
        kinds = {kind.value for kind in (HolderKind.WORKER, HolderKind.RUN, default)}
        kind = text_field(said, "kind", default.value)
        if kind not in kinds:
            raise InvalidRequest(f"holder.kind: {kind!r} is not one of {', '.join(sorted(kinds))}", field="holder.kind")
        is_self = kind == default.value
        return Holder(
            kind=HolderKind(kind),
            id=caller.owner_id if is_self else text_field(said, "id")[:MAX_LABEL],
            user=caller.user,
            host=self.broker.host,
            pid=caller.kernel_pid or caller.pid,
            label=(text_field(said, "label", "") or caller.label)[:MAX_LABEL],
            parent="" if is_self else caller.owner_id,
        )

    def _wait_for(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        request = self.broker.request(text_field(payload, "request_id"))
        self._check_holder(request.holder, caller)
        if request.state is RequestState.QUEUED:
            self.broker.maintain()
            request = self.broker.request(request.id)
        return self._answer(request)

    def _answer(self, request: Request) -> JSON:
        """A request with its place in the queue, or with the lease it became and what that needs."""
        if request.state is not RequestState.GRANTED:
            waiting = [r.id for r in self.broker.queue()]
            position = waiting.index(request.id) + 1 if request.id in waiting else None
            return {"request": request_to_dict(request, position), "lease": None, "prepared": None}
        lease = self.broker.lease(request.lease_id)
        if lease.state is LeaseState.GRANTED:
            prepared: JSON | None = prepared_to_dict(self.broker.prepare(lease))
            lease = self.broker.lease(lease.id)
        else:
            prepared = self._preparation(lease)
        return {"request": request_to_dict(request), "lease": lease_to_dict(lease), "prepared": prepared}

    def _preparation(self, lease: Lease) -> JSON | None:
        """What its process was given; None when the lease is over or a device does not answer now.

        Looking must never end a lease that is in use, so a failure here is not one of the lease.
        """
        if not lease.is_live:
            return None
        try:
            return prepared_to_dict(self.broker.preparation(lease))
        except PrepareFailed:
            return None

    def _mine(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        leases = [lease for lease in self.broker.leases() if _belongs(lease.holder, caller)]
        waiting = [(n, r) for n, r in enumerate(self.broker.queue(), 1) if _belongs(r.holder, caller)]
        own = {lease.id: self._preparation(lease) for lease in leases if lease.holder.id == caller.owner_id}
        return {
            "leases": [lease_to_dict(lease) for lease in leases],
            "requests": [request_to_dict(request, position) for position, request in waiting],
            "prepared": {lease_id: prepared for lease_id, prepared in own.items() if prepared is not None},
        }

    # -- changing -----------------------------------------------------------------------------------------------

    def _cancel(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        request = self.broker.request(text_field(payload, "request_id"))
        self._check_holder(request.holder, caller)
        return request_to_dict(self.broker.cancel(request.id))

    def _activate(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        lease = self._owned(payload, caller)
        verified = payload.get("verified")
        if not (verified is None or isinstance(verified, bool)):
            raise InvalidRequest("verified: expected true, false or null", field="verified")
        note = text_field(payload, "note", "")[:MAX_LABEL]
        token = integer_field(payload, "token")
        return lease_to_dict(self.broker.activate(lease.id, token, verified=verified, note=note))

    def _bind(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        lease = self._owned(payload, caller)
        token, root_pid = integer_field(payload, "token"), integer_field(payload, "root_pid", least=1)
        pid = lease.holder.pid if lease.holder.pid is not None else root_pid
        return lease_to_dict(self.broker.bind(lease.id, token, pid=pid, root_pid=root_pid))

    def _extend(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        lease = self._owned(payload, caller)
        seconds = number_field(payload, "seconds", least=1)
        if seconds is None:
            raise InvalidRequest("seconds: say by how many seconds to extend", field="seconds")
        return lease_to_dict(self.broker.extend(lease.id, lease.token, seconds))

    def _release(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        lease = self._owned(payload, caller)
        return lease_to_dict(self.broker.release(lease.id, lease.token))

    def _owned(self, payload: Mapping[str, Any], caller: Caller) -> Lease:
        lease = self.broker.lease(text_field(payload, "lease_id"))
        self._check_holder(lease.holder, caller)
        return lease

    def _check_holder(self, holder: Holder, caller: Caller) -> None:
        """Only the user who holds it, or an admin, may change a lease or a request."""
        if holder.user != caller.user and not caller.is_admin:
            raise NotYours(f"that belongs to {holder.user}; only they or an admin may change it")


def prepared_to_dict(prepared: Prepared) -> JSON:
    """A preparation as JSON."""
    return {
        "environment": dict(prepared.environment),
        "cores": list(prepared.cores),
        "memory_limit_bytes": prepared.memory_limit_bytes,
        "enforced_by": prepared.enforced_by.value,
        "expects": dict(prepared.expects),
    }


def _flag(payload: Mapping[str, Any], name: str) -> bool:
    """The boolean under `name`, False when absent; raises `InvalidRequest` when it is anything else."""
    value = payload.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: expected true or false, got {value!r}", field=name)
    return value


def _usage_dicts(usage: Mapping[str, Usage]) -> dict[str, JSON]:
    return {name: asdict(use) for name, use in usage.items()}


def _belongs(holder: Holder, caller: Caller) -> bool:
    return caller.owner_id in (holder.id, holder.parent)
