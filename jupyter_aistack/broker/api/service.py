"""The verbs a client may call, whichever transport carries them: JSON in, JSON out.

The caller is known by the transport (a socket's peer, Jupyter's login), never by what
it says of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.usage_meter import ChargedTotals
from jupyter_aistack.core.accounting.usage_report import Rates
from jupyter_aistack.core.model.device_state import RequestedAction
from jupyter_aistack.core.model.lease import Lease, LeaseState
from jupyter_aistack.core.model.policy import DEFAULT_QUEUE
from jupyter_aistack.core.model.request import Holder, HolderKind, Request, RequestState
from jupyter_aistack.core.model.spec import MAX_COUNT, is_profile
from jupyter_aistack.core.scheduling.admission import problems
from jupyter_aistack.core.scheduling.forecast import QueuedForecast
from jupyter_aistack.core.wire.values import (
    flag_field,
    host_to_dict,
    integer_field,
    moment_field,
    number_field,
    reservation_to_dict,
    residence_to_dict,
    text_field,
)
from jupyter_aistack.core.wire.visibility import Visibility
from jupyter_aistack.exceptions import InvalidRequest, PermissionDenied, PrepareFailed
from jupyter_aistack.providers.base import Preparation, Usage
from jupyter_aistack.system.processes import groups_of

from .reports import AccountingAPI

JSON = dict[str, Any]
MAX_LABEL = 512
MAX_SHOWN = 1000
"""How far down the queue reasons and times are worked out: for most who ask, and at
all.
"""


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
        is_admin: may change what belongs to others, whatever the settings say of the
            user.
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
    """A broker, spoken to in JSON.

    Args:
        broker: what answers.
        admins: logins and ``@group`` names that may change what belongs to others, and
            reserve.
        show_names: whether users see the names of others.
        groups: the Unix groups of a login.
        rates: what energy and devices cost here.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        admins: frozenset[str] = frozenset(),
        show_names: bool = True,
        groups: Callable[[str], frozenset[str]] = groups_of,
        rates: Rates | None = None,
    ) -> None:
        self.broker = broker
        self._reports = AccountingAPI(broker, rates or Rates())
        self._admins = admins
        self._show_names = show_names
        self._groups = groups
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
            "listed": self._listed,
            "bind": self._bind,
            "extend": self._extend,
            "release": self._release,
            "reservations": self._reservations,
            "reserve": self._reserve,
            "unreserve": self._unreserve,
            "mig_plan": self._mig_plan,
            "mig_apply": self._mig_apply,
            "cells": self._cells,
            "bill": self._bill,
            "report": self._report,
            "advise": self._advise,
            "suspend": self._suspend,
            "resume": self._resume,
            "pin": self._pin,
            "unpin": self._unpin,
            "begin_cell": self._begin_cell,
            "end_cell": self._end_cell,
        }

    def call(self, verb: str, payload: Mapping[str, Any], caller: Caller) -> JSON:
        """Answer one call.

        Raises:
            AIStackError: whatever went wrong, one sentence for the user.
        """
        answer = self._verbs.get(verb)
        if answer is None:
            raise InvalidRequest(
                f"verb: {verb!r} is not known; there is {', '.join(self._verbs)}",
                field="verb",
            )
        if not isinstance(payload, Mapping):
            raise InvalidRequest("payload: expected an object", field="payload")
        return answer(payload, caller)

    # -- looking -----------------------------------------------------------------------

    def _host(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        broker = self.broker
        inventory = broker.inventory()
        return host_to_dict(
            inventory,
            broker.leases(),
            broker.policy.queues,
            reservations=broker.reservations(),
            problems=tuple(problems(broker.policy, inventory)),
            capability=broker.suspend_support.capability,
            now=broker.clock(),
        )

    def _leases(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        sight = self._sight(caller)
        leases = self.broker.leases(live=not payload.get("all"))
        return {
            "leases": [
                sight.lease(lease) for lease in self.broker.with_pin_reasons(leases)
            ]
        }

    def _queue(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        sight = self._sight(caller)
        return {
            "queue": [sight.waiting(one) for one in self.broker.waiting()[:MAX_SHOWN]]
        }

    def _events(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        after = integer_field({"after": 0, **payload}, "after")
        sight = self._sight(caller)
        own: set[str] = set()
        if not sight.sees_names:
            mine = [
                lease
                for lease in self.broker.leases(live=False)
                if lease.holder.user == caller.user
            ]
            own = {name for lease in mine for name in (lease.id, lease.request_id)}
        return {
            "events": [sight.event(event, own) for event in self.broker.events(after)]
        }

    def _usage(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        by_lease, by_device = self.broker.usage()
        return {
            "at": self.broker.clock(),
            "devices": _usage_dicts(by_device),
            "leases": _usage_dicts(by_lease),
        }

    def _reservations(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        now = self.broker.clock()
        return {
            "reservations": [
                reservation_to_dict(one, now) for one in self.broker.reservations()
            ]
        }

    def _sight(self, caller: Caller) -> Visibility:
        return Visibility(
            user=caller.user, sees_names=self._show_names or self._is_admin(caller)
        )

    def _is_admin(self, caller: Caller) -> bool:
        if caller.is_admin or caller.user in self._admins:
            return True
        has_groups = any(name.startswith("@") for name in self._admins)
        return has_groups and any(
            f"@{group}" in self._admins for group in self._groups(caller.user)
        )

    # -- asking ------------------------------------------------------------------------

    def _request(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        request = self.broker.submit(
            text_field(payload, "spec"),
            self._holder(payload.get("holder"), caller),
            queue=text_field(payload, "queue", ""),
            lease_seconds=number_field(payload, "lease_seconds", least=1),
            patience_seconds=number_field(payload, "patience_seconds"),
            preemptible=flag_field(payload, "preemptible"),
            groups=self._groups(caller.user),
        )
        whose = {
            "user": caller.user,
            "owner": caller.owner_id,
            "label": request.holder.label,
        }
        advice = self._reports.line_for(request.spec, **whose)
        return {**self._answer(request, caller), "advice": advice}

    def _holder(self, said: object, caller: Caller) -> Holder:
        """The holder of a new request: the caller itself, or a worker or run that
        belongs to it.
        """
        said = {} if said is None else said
        if not isinstance(said, Mapping):
            raise InvalidRequest(
                f"holder: expected an object with kind and id, got {said!r}",
                field="holder",
            )
        default = HolderKind.KERNEL if caller.kernel_id else HolderKind.PROCESS
        kinds = {kind.value for kind in (HolderKind.WORKER, HolderKind.RUN, default)}
        kind = text_field(said, "kind", default.value)
        if kind not in kinds:
            raise InvalidRequest(
                f"holder.kind: {kind!r} is not one of {', '.join(sorted(kinds))}",
                field="holder.kind",
            )
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
        return self._answer(request, caller)

    def _answer(self, request: Request, caller: Caller) -> JSON:
        """A request with its place in the queue, or with the lease it became and what
        that needs.
        """
        sight = self._sight(caller)
        if request.state is not RequestState.GRANTED:
            place = (
                self._place(request) if request.state is RequestState.QUEUED else None
            )
            shown = sight.request(request) if place is None else sight.waiting(place)
            return {"request": shown, "lease": None, "prepared": None}
        lease = self.broker.lease(request.lease_id)
        if lease.state is LeaseState.GRANTED:
            prepared: JSON | None = prepared_to_dict(self.broker.prepare(lease))
            lease = self.broker.lease(lease.id)
        else:
            prepared = self._preparation(lease)
        return {
            "request": sight.request(request),
            "lease": sight.lease(lease),
            "prepared": prepared,
        }

    def _place(self, request: Request) -> QueuedForecast | None:
        """Where a request stands; None when it waits no longer."""
        return next(
            (one for one in self.broker.waiting() if one.request.id == request.id), None
        )

    def _own_requests(self, caller: Caller) -> list[Request]:
        """The requests of a caller that wait. Each kernel asks before each cell: it
        must cost little for most.
        """
        state = self.broker.ledger.read(self.broker.host, self.broker.clock())
        return [
            request for request in state.requests if _belongs(request.holder, caller)
        ]

    def _preparation(self, lease: Lease) -> JSON | None:
        """What its process was given; None when the lease is over or a device does not
        answer now.

        Looking must never end a lease that is in use, so a failure here is not one of
        the lease.
        """
        if not lease.is_live:
            return None
        try:
            return prepared_to_dict(self.broker.preparation(lease))
        except PrepareFailed:
            return None

    def _mine(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        sight = self._sight(caller)
        leases = [
            lease for lease in self.broker.leases() if _belongs(lease.holder, caller)
        ]
        places = (
            (request, self._place(request)) for request in self._own_requests(caller)
        )
        waiting = [
            sight.request(r) if place is None else sight.waiting(place)
            for r, place in places
        ]
        own = {
            lease.id: self._preparation(lease)
            for lease in leases
            if lease.holder.id == caller.owner_id
        }
        return {
            "leases": [
                sight.lease(lease) for lease in self.broker.with_pin_reasons(leases)
            ],
            "requests": waiting,
            "prepared": {
                lease_id: prepared
                for lease_id, prepared in own.items()
                if prepared is not None
            },
        }

    # -- changing ----------------------------------------------------------------------

    def _cancel(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        request = self.broker.request(text_field(payload, "request_id"))
        self._check_holder(request.holder, caller)
        return self._sight(caller).request(self.broker.cancel(request.id))

    def _activate(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        lease = self._owned(payload, caller)
        verified = payload.get("verified")
        if not (verified is None or isinstance(verified, bool)):
            raise InvalidRequest(
                "verified: expected true, false or null", field="verified"
            )
        note = text_field(payload, "note", "")[:MAX_LABEL]
        token = integer_field(payload, "token")
        return self._sight(caller).lease(
            self.broker.activate(lease.id, token, verified=verified, note=note)
        )

    def _listed(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        """Whether the server that holds a lease to its size knows a process; null when
        nobody can say.
        """
        lease = self._owned(payload, caller)
        pid = integer_field(payload, "pid", least=1)
        clients = self.broker.clients(lease)
        return {"listed": None if clients is None else pid in clients}

    def _bind(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        lease = self._owned(payload, caller)
        token = integer_field(payload, "token")
        root_pid = integer_field(payload, "root_pid", least=1)
        pid = lease.holder.pid if lease.holder.pid is not None else root_pid
        return self._sight(caller).lease(
            self.broker.bind(lease.id, token, pid=pid, root_pid=root_pid)
        )

    def _extend(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        lease = self._owned(payload, caller)
        seconds = number_field(payload, "seconds", least=1)
        if seconds is None:
            raise InvalidRequest(
                "seconds: say by how many seconds to extend", field="seconds"
            )
        return self._sight(caller).lease(
            self.broker.extend(lease.id, lease.token, seconds)
        )

    def _release(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        lease = self._owned(payload, caller)
        return self._sight(caller).lease(self.broker.release(lease.id, lease.token))

    def _owned(self, payload: Mapping[str, Any], caller: Caller) -> Lease:
        lease = self.broker.lease(text_field(payload, "lease_id"))
        self._check_holder(lease.holder, caller)
        return lease

    def _check_holder(self, holder: Holder, caller: Caller) -> None:
        """Only the user who holds it, or an admin, may change a lease or a request."""
        if holder.user != caller.user and not self._is_admin(caller):
            owner = holder.user if self._show_names else "somebody else"
            raise PermissionDenied(
                f"that belongs to {owner}; only they or an admin may change it"
            )

    def charged(self, caller: Caller) -> tuple[list[ChargedTotals], Rates]:
        """For counters: what this process has charged since it started, as this caller
        may see it, and the rates.
        """
        return self._reports.charged(self._sight(caller)), self._reports.rates

    # -- accounting --------------------------------------------------------------------

    def _cells(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return self._reports.record_cells(payload, caller.owner_id)

    def _bill(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return self._reports.bill(payload, **_whose(payload, caller))

    def _report(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return self._reports.report(payload, self._sight(caller))

    def _advise(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return self._reports.advice(payload, **_whose(payload, caller))

    # -- suspending --------------------------------------------------------------------

    def _suspend(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return self._sight(caller).lease(
            self.broker.request_action(
                self._owned(payload, caller).id, RequestedAction.SUSPEND
            )
        )

    def _resume(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return self._sight(caller).lease(
            self.broker.request_action(
                self._owned(payload, caller).id, RequestedAction.RESUME
            )
        )

    def _pin(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return self._sight(caller).lease(
            self.broker.set_pinned(self._owned(payload, caller).id, True)
        )

    def _unpin(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return self._sight(caller).lease(
            self.broker.set_pinned(self._owned(payload, caller).id, False)
        )

    def _begin_cell(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        """A cell needs the device: where its state is, and how many waited for theirs
        there before it.
        """
        lease = self.broker.begin_cell(self._owned(payload, caller).id)
        return self._residence(lease, ahead=self._ahead(lease))

    def _end_cell(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        return self._residence(
            self.broker.end_cell(self._owned(payload, caller).id), ahead=0
        )

    def _residence(self, lease: Lease, *, ahead: int) -> JSON:
        is_held = lease.is_live and lease.residence is not None
        return {
            "residence": residence_to_dict(lease.residence)
            if is_held and lease.residence
            else None,
            "ahead": ahead,
        }

    def _ahead(self, lease: Lease) -> int:
        """How many leases have waited longer to have their state back on one of the
        same devices.
        """
        since = None if lease.residence is None else lease.residence.wanted_at
        if since is None:
            return 0
        home = {piece.device_id for piece in lease.slices}
        others = (
            other
            for other in self.broker.leases()
            if other.id != lease.id and other.residence is not None
        )
        there = (
            o.residence.wanted_at
            for o in others
            if o.residence and home & {p.device_id for p in o.slices}
        )
        return sum(at is not None and at < since for at in there)

    # -- reserving ---------------------------------------------------------------------

    def _reserve(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        self._check_admin(caller, "reservations are made")
        made = self.broker.reserve(
            name=text_field(payload, "name")[:MAX_LABEL],
            queue=text_field(payload, "queue", DEFAULT_QUEUE),
            spec=text_field(payload, "spec"),
            count=integer_field(
                {"count": 1, **payload}, "count", least=1, most=MAX_COUNT
            ),
            starts_at=moment_field(payload, "starts_at"),
            ends_at=moment_field(payload, "ends_at"),
            is_weekly=flag_field(payload, "weekly"),
            created_by=caller.user,
        )
        return reservation_to_dict(made, self.broker.clock())

    def _unreserve(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        self._check_admin(caller, "reservations are made")
        gone = self.broker.unreserve(text_field(payload, "reservation_id"))
        return reservation_to_dict(gone, self.broker.clock())

    # -- cutting -----------------------------------------------------------------------

    def _mig_plan(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        plan = self.broker.mig.plan(self.broker.snapshot(), _profiles(payload))
        steps = [
            {**asdict(step), "action": step.action.value, "text": str(step)}
            for step in plan.steps
        ]
        refused = [
            {"profile": profile, "reason": reason} for profile, reason in plan.refused
        ]
        return {"steps": steps, "refused": refused}

    def _mig_apply(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        self._check_admin(caller, "GPUs are cut")
        profiles = _profiles(payload)
        refused = self._mig_plan(payload, caller)["refused"]
        done = self.broker.mig.make(self.broker.snapshot(), profiles)
        self.broker.cycle()
        return {"done": list(done), "refused": refused}

    def _check_admin(self, caller: Caller, what: str) -> None:
        if not self._is_admin(caller):
            raise PermissionDenied(
                f"{what} by admins only, and {caller.user} is none here; whoever configures the server "
                "can add the login to AIStack.admins"
            )


def prepared_to_dict(prepared: Preparation) -> JSON:
    """A preparation as JSON."""
    return {
        "environment": dict(prepared.environment),
        "cores": list(prepared.cores),
        "memory_limit_bytes": prepared.memory_limit_bytes,
        "enforced_by": prepared.enforced_by.value,
        "expects": dict(prepared.expects),
    }


def _profiles(payload: Mapping[str, Any]) -> tuple[str, ...]:
    """The MIG profiles under ``profiles``; none for those that waiting requests
    want.
    """
    value = payload.get("profiles", [])
    if not isinstance(value, list) or not all(
        isinstance(one, str) and is_profile(one) for one in value
    ):
        raise InvalidRequest(
            f"profiles: expected names such as 1g.18gb, got {value!r}", field="profiles"
        )
    return tuple(value)


def _usage_dicts(usage: Mapping[str, Usage]) -> dict[str, JSON]:
    return {name: asdict(use) for name, use in usage.items()}


def _whose(payload: Mapping[str, Any], caller: Caller) -> dict[str, str]:
    """Whose books are meant: a caller's own, under the name of its notebook where one
    is known.
    """
    label = caller.label or text_field(payload, "label", "")[:MAX_LABEL]
    return {"user": caller.user, "owner": caller.owner_id, "label": label}


def _belongs(holder: Holder, caller: Caller) -> bool:
    return caller.owner_id in (holder.id, holder.parent)
