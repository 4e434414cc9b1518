"""Verbs of those who run the host: reservations, and MIG instances."""

from __future__ import annotations

from dataclasses import asdict

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.mig import MIGReconfigurer
from jupyter_aistack.core.model.policy import DEFAULT_QUEUE
from jupyter_aistack.core.model.spec import MAX_COUNT, is_profile
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.values import (
    flag_field,
    integer_field,
    moment_field,
    reservation_to_dict,
    text_field,
)
from jupyter_aistack.exceptions import InvalidRequest

from .base import Payload, Verb, VerbGroup
from .caller import MAX_LABEL, Access, Caller


class AdminVerbs(VerbGroup):
    """``reserve``, ``unreserve``, ``mig_apply`` and, for all, ``mig_plan``.

    Args:
        broker: what answers.
        access: what callers may see and change.
        mig: creates MIG instances.
    """

    def __init__(self, broker: Broker, access: Access, mig: MIGReconfigurer) -> None:
        super().__init__(broker, access)
        self._mig = mig

    def verbs(self) -> dict[str, Verb]:
        return {
            "reserve": self._reserve,
            "unreserve": self._unreserve,
            "mig_plan": self._mig_plan,
            "mig_apply": self._mig_apply,
        }

    def _reserve(self, payload: Payload, caller: Caller) -> JSON:
        queue = text_field(payload, "queue", DEFAULT_QUEUE)
        self._access.check_queue("reserve", caller, queue)
        counted = {"count": 1, **payload}
        reservation = self._broker.reserve(
            name=text_field(payload, "name")[:MAX_LABEL],
            queue=queue,
            spec=text_field(payload, "spec"),
            count=integer_field(counted, "count", least=1, most=MAX_COUNT),
            starts_at=moment_field(payload, "starts_at"),
            ends_at=moment_field(payload, "ends_at"),
            is_weekly=flag_field(payload, "weekly"),
            created_by=caller.user,
        )
        return reservation_to_dict(reservation, self._broker.clock())

    def _unreserve(self, payload: Payload, caller: Caller) -> JSON:
        reservation_id = text_field(payload, "reservation_id")
        for reservation in self._broker.reservations():
            if reservation.id == reservation_id:
                self._access.check_queue("unreserve", caller, reservation.queue)
        removed = self._broker.unreserve(reservation_id)
        return reservation_to_dict(removed, self._broker.clock())

    def _mig_plan(self, payload: Payload, caller: Caller) -> JSON:
        plan = self._mig.plan(self._broker.snapshot(), _profiles(payload))
        steps = [
            {**asdict(step), "action": step.action.value, "text": str(step)}
            for step in plan.steps
        ]
        refused = [
            {"profile": profile, "reason": reason} for profile, reason in plan.refused
        ]
        return {"steps": steps, "refused": refused}

    def _mig_apply(self, payload: Payload, caller: Caller) -> JSON:
        profiles = _profiles(payload)
        # Planned first: refused profiles can no longer be distinguished once the
        # other instances are made.
        refused = self._mig_plan(payload, caller)["refused"]
        done = self._mig.make(self._broker.snapshot(), profiles)
        if done:
            self._broker.history.device_cut("; ".join(map(str, done)))
        self._broker.cycle()
        return {"done": list(done), "refused": refused}


def _profiles(payload: Payload) -> tuple[str, ...]:
    """The MIG profiles under ``profiles``; empty for those that waiting requests
    want.
    """
    value = payload.get("profiles", [])
    if not isinstance(value, list) or not all(map(_is_profile, value)):
        raise InvalidRequest(
            f"profiles: expected names such as 1g.18gb, got {value!r}", field="profiles"
        )
    return tuple(value)


def _is_profile(value: object) -> bool:
    return isinstance(value, str) and is_profile(value)
