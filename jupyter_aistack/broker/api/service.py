"""The verbs a client may call, whichever transport carries them: JSON in, JSON out.

The caller is known by the transport (a socket's peer, Jupyter's login), never by what
it says of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.charged_totals import ChargedTotals
from jupyter_aistack.broker.neighbours import Neighbours
from jupyter_aistack.core.accounting.usage_report import Rates
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.roles import RoleSettings
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.verbs import READING_VERBS
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.ledger.actor import Actor, acting
from jupyter_aistack.system.users import groups_of

from .accounting_verbs import AccountingVerbs
from .admin_verbs import AdminVerbs
from .audit_verbs import AuditVerbs
from .base import Payload, Verb, VerbGroup
from .caller import Access, Caller
from .device_verbs import DeviceVerbs
from .figures import HostFigures, figures_of
from .host_verbs import HostVerbs
from .kernel_verbs import KernelVerbs
from .lease_verbs import LeaseVerbs
from .refusals import Refusals
from .reports import AccountingAPI
from .request_verbs import RequestVerbs
from .snapshots import HostSnapshots
from .suspend_verbs import SuspendVerbs


class Service:
    """A broker, spoken to in JSON.

    Args:
        broker: what answers.
        roles: who has which role.
        show_names: whether users see the names of others.
        groups: the Unix groups of a login.
        rates: what energy and devices cost here.
        neighbours: looks for others who use this host without its broker; None where
            that is none of this broker's business.

    Attributes:
        refusals: what callers were refused because it is not theirs to do.
        snapshots: the host, looked at once for all who ask.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        roles: RoleSettings | None = None,
        show_names: bool = True,
        groups: Callable[[str], frozenset[str]] = groups_of,
        rates: Rates | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.broker = broker
        self._access = Access(
            roles=roles or RoleSettings(), show_names=show_names, groups=groups
        )
        self.refusals = Refusals()
        self._accounting = AccountingAPI(
            broker.host_state,
            record_usage=broker.record_usage,
            usage_meter=broker.usage_meter,
            rates=rates or Rates(),
        )
        groups_of_verbs: tuple[VerbGroup, ...] = (
            HostVerbs(broker, self._access, neighbours),
            RequestVerbs(broker, self._access, self._accounting),
            LeaseVerbs(broker, self._access),
            SuspendVerbs(broker, self._access),
            DeviceVerbs(broker, self._access),
            KernelVerbs(broker, self._access),
            AdminVerbs(broker, self._access, broker.mig),
            AccountingVerbs(broker, self._access, self._accounting),
            AuditVerbs(broker, self._access),
        )
        self._verbs: dict[str, Verb] = {}
        for group in groups_of_verbs:
            self._verbs.update(group.verbs())
        self.snapshots = HostSnapshots(dict(self._verbs), self._access)
        self._verbs.update(self.snapshots.verbs())

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verbs there are."""
        return tuple(self._verbs)

    def call(self, verb: str, payload: Payload, caller: Caller) -> JSON:
        """Answer one call.

        Raises:
            AIStackError: what went wrong, in one sentence for the user.
        """
        answer = self._verbs.get(verb)
        if answer is None:
            raise InvalidRequest(
                f"verb: {verb!r} is not known; there is {', '.join(self.verbs)}",
                field="verb",
            )
        if not isinstance(payload, Mapping):
            raise InvalidRequest("payload: expected an object", field="payload")
        with self.refusals.recorded(verb, caller):
            self._access.check_verb(verb, caller)
            # What is written meanwhile is the caller's doing.
            with acting(Actor(user=caller.user, uid=caller.uid, pid=caller.pid)):
                try:
                    return answer(payload, caller)
                finally:
                    if verb not in READING_VERBS:
                        self.snapshots.note_change()

    def check_lease(self, verb: str, lease_id: str, caller: Caller) -> Lease:
        """A lease that a transport answers a verb about by itself, on which the caller
        may use that verb.

        Raises:
            LeaseNotFound: there is none.
            PermissionDenied: it is another user's.
        """
        lease = self.broker.lease(lease_id)
        with self.refusals.recorded(verb, caller):
            self._access.check_owner(verb, lease.holder, lease.queue, caller)
        return lease

    def figures(self, caller: Caller) -> HostFigures:
        """The host in objects, as this caller may see it."""
        figures = figures_of(self.broker, self._access.visibility(caller))
        return replace(figures, refused=dict(self.refusals.counts))

    def charged(self, caller: Caller) -> tuple[list[ChargedTotals], Rates]:
        """For counters: what this process has charged since it started, as this caller
        may see it, and the rates.
        """
        visibility = self._access.visibility(caller)
        return self._accounting.charged(visibility), self._accounting.rates
