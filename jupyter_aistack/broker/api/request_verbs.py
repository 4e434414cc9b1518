"""Verbs about requests: ask, wait, cancel, and the queue."""

from __future__ import annotations

from collections.abc import Mapping

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.leases import as_prepared
from jupyter_aistack.core.model.lease import Lease, LeaseState, Outcome
from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.core.model.request import Holder, HolderKind, Request, RequestState
from jupyter_aistack.core.scheduling.forecast import QueuedForecast
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.preparations import PREPARATION
from jupyter_aistack.core.wire.values import flag_field, number_field, text_field
from jupyter_aistack.exceptions import InvalidRequest, PrepareFailed
from jupyter_aistack.ledger.rows import refuse_ended

from .advice import Owner
from .base import Payload, Verb, VerbGroup
from .caller import MAX_LABEL, Access, Caller
from .reports import AccountingAPI

HOLDER_FIELDS = frozenset({"kind", "id", "label"})
"""What a caller may say of the holder of its request."""
MAX_SHOWN = 1000
"""How many requests of the queue are shown, first served first."""


class RequestVerbs(VerbGroup):
    """``request``, ``wait_for``, ``cancel``, ``take_back``, ``queue`` and ``mine``.

    Args:
        broker: what answers.
        access: what callers may see and change.
        accounting: knows what the notebook has needed before.
    """

    def __init__(
        self, broker: Broker, access: Access, accounting: AccountingAPI
    ) -> None:
        super().__init__(broker, access)
        self._accounting = accounting

    def verbs(self) -> dict[str, Verb]:
        return {
            "queue": self._queue,
            "request": self._request,
            "wait_for": self._wait_for,
            "cancel": self._cancel,
            "take_back": self._take_back,
            "mine": self._mine,
        }

    # -- asking ------------------------------------------------------------------------

    def _request(self, payload: Payload, caller: Caller) -> JSON:
        request = self._broker.submit(
            text_field(payload, "spec"),
            self._holder(payload.get("holder"), caller),
            queue=text_field(payload, "queue", ""),
            lease_seconds=number_field(payload, "lease_seconds", least=1),
            patience_seconds=number_field(payload, "patience_seconds"),
            preemptible=flag_field(payload, "preemptible"),
            up_to=text_field(payload, "up_to", ""),
            groups=self._access.groups_of(caller),
            idempotency_key=text_field(payload, "idempotency_key", "")[:MAX_LABEL],
        )
        try:
            return self._first_answer(request, caller)
        except BaseException:
            # The caller has no id of it yet, and would never know of the lease.
            self._broker.withdraw(request.id)
            raise

    def _first_answer(self, request: Request, caller: Caller) -> JSON:
        owner = Owner(
            user=caller.user, id=caller.account_id, label=request.holder.label
        )
        advice = self._accounting.advice_on_request(request.spec, owner)
        return {**self._outcome(request, caller), "advice": advice}

    def _holder(self, given: object, caller: Caller) -> Holder:
        """The holder of a new request: the caller itself, or a worker or run that
        belongs to it.
        """
        given = {} if given is None else given
        if not isinstance(given, Mapping):
            raise InvalidRequest(
                f"holder: expected an object with kind and id, got {given!r}",
                field="holder",
            )
        _check_holder_fields(given)
        kind = _holder_kind(given, caller.kind)
        is_self = kind is caller.kind
        label = text_field(given, "label", "") or caller.label
        return Holder(
            kind=kind,
            id=caller.owner_id if is_self else text_field(given, "id")[:MAX_LABEL],
            user=caller.user,
            host=self._broker.host,
            pid=caller.kernel_pid or caller.pid,
            label=printable(label)[:MAX_LABEL],
            parent=caller.parent if is_self else caller.owner_id,
        )

    def _wait_for(self, payload: Payload, caller: Caller) -> JSON:
        request = self._owned_request("wait_for", payload, caller)
        if caller.owns(request.holder):
            request = self._broker.adopt(request)
        if request.state is RequestState.QUEUED:
            self._broker.maintain()
            request = self._broker.request(request.id)
        return self._outcome(request, caller)

    def _cancel(self, payload: Payload, caller: Caller) -> JSON:
        request = self._owned_request("cancel", payload, caller)
        cancelled = self._broker.cancel(request.id)
        return self._visibility(caller).request(cancelled)

    def _take_back(self, payload: Payload, caller: Caller) -> JSON:
        """The caller does not know what became of its request, and wants it no more."""
        key = text_field(payload, "idempotency_key")[:MAX_LABEL]
        self._broker.withdraw_key(caller.user, key)
        return {}

    def _owned_request(self, verb: str, payload: Payload, caller: Caller) -> Request:
        request = self._broker.request(text_field(payload, "request_id"))
        self._access.check_owner(verb, request.holder, request.queue, caller)
        return request

    # -- what became of it -------------------------------------------------------------

    def _outcome(self, request: Request, caller: Caller) -> JSON:
        """A request with its place in the queue, or with the lease it became and what
        that needs.

        Raises:
            LeaseLost: the lease has failed before anybody has used it.
        """
        if request.state is not RequestState.GRANTED:
            shown = self._shown_request(request, caller)
            return {"request": shown, "lease": None, "prepared": None}

        lease = self._broker.lease(request.lease_id)
        if lease.outcome is Outcome.FAILED and lease.active_at is None:
            refuse_ended(lease)
        if lease.state is LeaseState.GRANTED:
            preparation = self._broker.prepare(lease)
            prepared: JSON | None = PREPARATION.to_dict(preparation)
            lease = as_prepared(lease, preparation)
        else:
            prepared = self._preparation(lease)
        visibility = self._visibility(caller)
        answer = {
            "request": visibility.request(request),
            "lease": visibility.lease(lease),
            "prepared": prepared,
        }
        if lease.is_live and caller.owns(request.holder):
            self._broker.answer(request.id)
        return answer

    def _shown_request(self, request: Request, caller: Caller) -> JSON:
        visibility = self._visibility(caller)
        is_queued = request.state is RequestState.QUEUED
        forecast = self._forecast(request) if is_queued else None
        if forecast is None:
            return visibility.request(request)
        return visibility.waiting(forecast)

    def _forecast(self, request: Request) -> QueuedForecast | None:
        """Where a request stands; None when it waits no longer."""
        for forecast in self._broker.waiting():
            if forecast.request.id == request.id:
                return forecast
        return None

    def _preparation(self, lease: Lease) -> JSON | None:
        """What its process was given; None when the lease is over or a device does not
        answer now.

        A question must never end a lease that is in use, so a failure here is no
        failure of the lease.
        """
        if not lease.is_live:
            return None
        try:
            return PREPARATION.to_dict(self._broker.preparation(lease))
        except PrepareFailed:
            return None

    # -- reading -----------------------------------------------------------------------

    def _queue(self, payload: Payload, caller: Caller) -> JSON:
        visibility = self._visibility(caller)
        forecasts = self._broker.waiting()[:MAX_SHOWN]
        return {"queue": [visibility.waiting(forecast) for forecast in forecasts]}

    def _mine(self, payload: Payload, caller: Caller) -> JSON:
        """The leases and requests of a caller. Each kernel asks before each cell, so it
        must cost little where nothing waits.
        """
        current = self._broker.current_leases()
        leases = [lease for lease in current if caller.owns(lease.holder)]
        requests = [
            self._broker.adopt(request)
            for request in self._broker.host_state.read().requests
            if caller.owns(request.holder)
        ]
        return {
            "leases": [
                self._shown(lease, caller)
                for lease in self._broker.with_pin_reasons(leases)
            ],
            "requests": [self._shown_request(request, caller) for request in requests],
            "prepared": self._prepared_for(leases, caller),
            "owner": caller.owner_id,
        }

    def _prepared_for(self, leases: list[Lease], caller: Caller) -> dict[str, JSON]:
        """What the caller's own process was given, by lease id."""
        prepared = {}
        for lease in leases:
            if not caller.is_holder(lease.holder):
                continue
            preparation = self._preparation(lease)
            if preparation is not None:
                prepared[lease.id] = preparation
        return prepared


def _check_holder_fields(given: Mapping[str, object]) -> None:
    """Refuse to be told what only the transport may tell, such as whose it is."""
    strange = sorted(map(str, given.keys() - HOLDER_FIELDS))
    if strange:
        raise InvalidRequest(
            f"holder.{strange[0]}: only {', '.join(sorted(HOLDER_FIELDS))} may be given",
            field=f"holder.{strange[0]}",
        )


def _holder_kind(given: Mapping[str, object], own_kind: HolderKind) -> HolderKind:
    kinds = {kind.value for kind in (HolderKind.WORKER, HolderKind.RUN, own_kind)}
    kind = text_field(given, "kind", own_kind.value)
    if kind not in kinds:
        raise InvalidRequest(
            f"holder.kind: {kind!r} is not one of {', '.join(sorted(kinds))}",
            field="holder.kind",
        )
    return HolderKind(kind)
