"""Verbs about suspension: suspend, resume, pin, and the cells that need the device."""

from __future__ import annotations

from jupyter_aistack.core.model.device_state import RequestedAction
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.records import DEVICE_STATE

from .base import Payload, Verb, VerbGroup
from .caller import Caller


class SuspendVerbs(VerbGroup):
    """``suspend``, ``resume``, ``pin``, ``unpin``, ``begin_cell`` and ``end_cell``."""

    def verbs(self) -> dict[str, Verb]:
        return {
            "suspend": self._suspend,
            "resume": self._resume,
            "pin": self._pin,
            "unpin": self._unpin,
            "begin_cell": self._begin_cell,
            "end_cell": self._end_cell,
        }

    def _suspend(self, payload: Payload, caller: Caller) -> JSON:
        return self._request_action(payload, caller, RequestedAction.SUSPEND)

    def _resume(self, payload: Payload, caller: Caller) -> JSON:
        return self._request_action(payload, caller, RequestedAction.RESUME)

    def _request_action(
        self, payload: Payload, caller: Caller, action: RequestedAction
    ) -> JSON:
        lease = self._owned(action.value, payload, caller)
        return self._shown(self._broker.request_action(lease.id, action), caller)

    def _pin(self, payload: Payload, caller: Caller) -> JSON:
        lease = self._owned("pin", payload, caller)
        return self._shown(self._broker.set_pinned(lease.id, True), caller)

    def _unpin(self, payload: Payload, caller: Caller) -> JSON:
        lease = self._owned("unpin", payload, caller)
        return self._shown(self._broker.set_pinned(lease.id, False), caller)

    # -- cells -------------------------------------------------------------------------

    def _begin_cell(self, payload: Payload, caller: Caller) -> JSON:
        """A cell needs the device: where its state is, and how many leases have waited
        longer for theirs.
        """
        lease = self._owned("begin_cell", payload, caller)
        lease = self._broker.begin_cell(lease.id)
        return {"residence": _residence(lease), "ahead": self._ahead(lease)}

    def _end_cell(self, payload: Payload, caller: Caller) -> JSON:
        lease = self._owned("end_cell", payload, caller)
        lease = self._broker.end_cell(lease.id)
        return {"residence": _residence(lease), "ahead": 0}

    def _ahead(self, lease: Lease) -> int:
        """How many leases have waited longer to be resumed on one of the same
        devices.
        """
        since = _wanted_at(lease)
        if since is None:
            return 0
        devices = _devices(lease)
        ahead = 0
        for other in self._broker.current_leases():
            other_since = _wanted_at(other)
            if other.id == lease.id or other_since is None:
                continue
            if other_since < since and devices & _devices(other):
                ahead += 1
        return ahead


def _residence(lease: Lease) -> JSON | None:
    if lease.residence is None or not lease.is_live:
        return None
    return DEVICE_STATE.to_dict(lease.residence)


def _wanted_at(lease: Lease) -> float | None:
    return None if lease.residence is None else lease.residence.wanted_at


def _devices(lease: Lease) -> set[str]:
    return {slice_.device_id for slice_ in lease.slices}
