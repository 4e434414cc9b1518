"""What a caller sees of leases, requests and events: all of its own, and of others as
much as the settings allow.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from jupyter_aistack.core.model.events import Event
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import Holder, Request
from jupyter_aistack.core.model.stray import Stray
from jupyter_aistack.core.scheduling.forecast import QueuedForecast

from .records import EVENT, LEASE, STRAY
from .values import request_to_dict

JSON = dict[str, Any]
ANONYMOUS = "someone"


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """What a user may see.

    Attributes:
        user: whose they are.
        sees_names: names of all others are shown.
        queues: the queues in which names of others are shown.
    """

    user: str
    sees_names: bool
    queues: frozenset[str] = frozenset()

    def sees(self, user: str, queue: str) -> bool:
        """Whether it is shown what a user has in a queue."""
        return self.sees_names or user == self.user or queue in self.queues

    def shown_user(self, user: str, queue: str) -> str:
        """The name under which a user is shown for what they have in a queue."""
        if self.sees(user, queue):
            return user
        return ANONYMOUS

    def lease(self, lease: Lease) -> JSON:
        """A lease as this user may see it, on the wire."""
        return LEASE.to_dict(self.redacted(lease))

    def redacted(self, lease: Lease) -> Lease:
        """A lease as this user may see it; a condition may name the notebook."""
        holder = self._holder(lease.holder, lease.queue)
        if holder == lease.holder:
            return lease
        return replace(lease, holder=holder, conditions=())

    def request(self, request: Request) -> JSON:
        """A request that is decided."""
        holder = self._holder(request.holder, request.queue)
        return request_to_dict(replace(request, holder=holder))

    def waiting(self, forecast: QueuedForecast) -> JSON:
        """A request that waits, with position, reason and the moment it is expected to
        be granted.
        """
        request = replace(
            forecast.request,
            holder=self._holder(forecast.request.holder, forecast.request.queue),
            reason=self._reason(forecast),
        )
        return request_to_dict(request, forecast.position, forecast.eta_at)

    def stray(self, stray: Stray) -> JSON:
        """A process without a lease, on the wire, as this user may see it."""
        seen = self.seen_stray(stray)
        return {**STRAY.to_dict(seen), "is_own": stray.user == self.user}

    def seen_stray(self, stray: Stray) -> Stray:
        """A process without a lease as this user may see it: of others' its program at
        most, as arguments may hold secrets.
        """
        if stray.user == self.user:
            return stray
        if self.sees_names:
            return replace(stray, command=stray.program, kernel_id="")
        return replace(
            stray, user=ANONYMOUS, pid=None, program="", command="", kernel_id=""
        )

    def event(self, event: Event, own: Collection[str]) -> JSON:
        """An event; `own` are the ids of the leases and requests that this user sees
        the holders of, asked for where names are hidden only.
        """
        is_own = event.lease_id in own or event.request_id in own
        if self.sees_names or is_own:
            return EVENT.to_dict(event)
        return EVENT.to_dict(replace(event, detail=""))

    def _holder(self, holder: Holder, queue: str) -> Holder:
        if self.sees(holder.user, queue):
            return holder
        return replace(holder, user=ANONYMOUS, label="", pid=None, root_pid=None)

    def _reason(self, forecast: QueuedForecast) -> str:
        """Why it waits; the limits of another user would name that user."""
        if self.sees_names:
            return forecast.reason
        request = forecast.request
        owner = request.holder.user
        is_seen = self.sees(owner, request.queue)
        if not is_seen and owner in forecast.public_reason:
            return "a limit of its user is reached"
        return forecast.public_reason
