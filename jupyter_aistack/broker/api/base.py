"""What all groups of verbs share: a broker, and what callers may do with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.values import text_field
from jupyter_aistack.core.wire.visibility import Visibility

from .caller import Access, Caller

Payload = Mapping[str, Any]
Verb = Callable[[Payload, Caller], JSON]
"""Answers one call: its payload and caller in, JSON out. Raises `AIStackError`."""


class VerbGroup(ABC):
    """Verbs about one kind of resource.

    Args:
        broker: what answers.
        access: what callers may see and change.
    """

    def __init__(self, broker: Broker, access: Access) -> None:
        self._broker = broker
        self._access = access

    @abstractmethod
    def verbs(self) -> dict[str, Verb]:
        """The verbs by the name that callers use."""

    def _visibility(self, caller: Caller) -> Visibility:
        return self._access.visibility(caller)

    def _owned(self, verb: str, payload: Payload, caller: Caller) -> Lease:
        """The lease under ``lease_id``, on which the caller may use a verb.

        Raises:
            LeaseNotFound: there is none.
            PermissionDenied: it is another user's.
        """
        lease = self._broker.lease(text_field(payload, "lease_id"))
        self._access.check_owner(verb, lease.holder, lease.queue, caller)
        return lease

    def _shown(self, lease: Lease, caller: Caller) -> JSON:
        return self._visibility(caller).lease(lease)
