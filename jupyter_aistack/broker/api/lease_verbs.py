"""Verbs about leases: in use, extended, released."""

from __future__ import annotations

from collections.abc import Mapping

from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    new_condition,
)
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.values import integer_field, number_field, text_field
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.ledger.rows import refuse_ended
from jupyter_aistack.system.processes import ancestors

from .base import Payload, Verb, VerbGroup
from .caller import MAX_LABEL, Caller


class LeaseVerbs(VerbGroup):
    """``leases``, ``activate``, ``listed``, ``bind``, ``extend`` and ``release``."""

    def verbs(self) -> dict[str, Verb]:
        return {
            "leases": self._leases,
            "activate": self._activate,
            "listed": self._listed,
            "bind": self._bind,
            "extend": self._extend,
            "release": self._release,
        }

    def _leases(self, payload: Payload, caller: Caller) -> JSON:
        leases = self._broker.current_leases(live=not payload.get("all"))
        pinned = self._broker.with_pin_reasons(leases)
        return {"leases": [self._shown(lease, caller) for lease in pinned]}

    def _activate(self, payload: Payload, caller: Caller) -> JSON:
        lease = self._owned("activate", payload, caller)
        verified = payload.get("verified")
        if verified is not None and not isinstance(verified, bool):
            raise InvalidRequest(
                "verified: expected true, false or null", field="verified"
            )
        token = integer_field(payload, "token")
        activated = self._broker.activate(
            lease.id,
            token,
            verified=verified,
            condition=self._condition_found(payload, verified),
        )
        return self._shown(activated, caller)

    def _condition_found(
        self, payload: Payload, verified: bool | None
    ) -> Condition | None:
        """What a check in the holder's process has found. Its kind follows from the
        verdict, so that a caller cannot claim anything else.
        """
        told = payload.get("condition")
        if verified is True or told is None:
            return None
        if not isinstance(told, Mapping):
            raise InvalidRequest(
                f"condition: expected an object with a message, got {told!r}",
                field="condition",
            )
        is_unknown = verified is None
        kind = ConditionKind.NOT_VERIFIED if is_unknown else ConditionKind.NOT_ENFORCED
        message = text_field(told, "message", "")[:MAX_LABEL]
        return new_condition(kind, message, self._broker.clock())

    def _listed(self, payload: Payload, caller: Caller) -> JSON:
        """Whether the server that enforces a lease knows a process; null where no
        server reports it.
        """
        lease = self._owned("listed", payload, caller)
        refuse_ended(lease)
        pid = integer_field(payload, "pid", least=1)
        clients = self._broker.clients(lease)
        return {"listed": None if clients is None else pid in clients}

    def _bind(self, payload: Payload, caller: Caller) -> JSON:
        lease = self._owned("bind", payload, caller)
        token = integer_field(payload, "token")
        root_pid = integer_field(payload, "root_pid", least=1)
        refuse_ended(lease)
        self._access.check_process(root_pid, caller)
        pid = root_pid if lease.holder.pid is None else lease.holder.pid
        if "pid" in payload:
            pid = integer_field(payload, "pid", least=1)
            _check_started(pid, caller)
        bound = self._broker.bind(lease.id, token, pid=pid, root_pid=root_pid)
        return self._shown(bound, caller)

    def _extend(self, payload: Payload, caller: Caller) -> JSON:
        lease = self._owned("extend", payload, caller)
        seconds = number_field(payload, "seconds", least=1)
        if seconds is None:
            raise InvalidRequest(
                "seconds: say by how many seconds to extend", field="seconds"
            )
        extended = self._broker.extend(lease.id, lease.token, seconds)
        return self._shown(extended, caller)

    def _release(self, payload: Payload, caller: Caller) -> JSON:
        lease = self._owned("release", payload, caller)
        return self._shown(self._broker.release(lease.id, lease.token), caller)


def _check_started(pid: int, caller: Caller) -> None:
    """A lease may live as long as what its holder has started, and not as long as any
    process that never ends.
    """
    if caller.pid not in ancestors(pid)[1:]:
        raise InvalidRequest(
            f"pid: {pid} is no process that {caller.pid} has started", field="pid"
        )
