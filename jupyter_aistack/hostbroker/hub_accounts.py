"""Unix accounts whose processes act for users of JupyterHub: the one that all servers of
a hub share, and that of a hub's service.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.exceptions import InvalidRequest, PermissionDenied
from jupyter_aistack.system.users import is_unnamed

from .callers import ROOT
from .hub_identity import HubIdentities, HubUser, asking


class HubAccounts:
    """Tells for whom the processes of such accounts act.

    Args:
        hub_url: the hub's API; empty for no hub.
        logins: the accounts.

    Raises:
        InvalidRequest: one of them makes no sense; the setting is named.
    """

    def __init__(self, hub_url: str = "", logins: frozenset[str] = frozenset()) -> None:
        if logins and not hub_url:
            raise InvalidRequest(
                "hub_accounts: say in hub_url where the hub's API is, by which the "
                "tokens of these accounts are checked",
                field="hub_accounts",
            )
        self.hub_url = hub_url
        self.logins = logins
        self._identities = HubIdentities(asking(hub_url)) if hub_url else None

    def is_same(self, other: HubAccounts) -> bool:
        """Whether both say the same, so that what one knows of tokens may be kept."""
        return (self.hub_url, self.logins) == (other.hub_url, other.logins)

    async def caller_for(self, own: Caller, token: str) -> Caller:
        """For whom a process acts: for itself, unless it is of such an account and
        shows the token of a hub's user.

        Raises:
            PermissionDenied: it is of such an account and shows no token, or one that
                the hub does not vouch for.
        """
        if self._identities is None or own.user not in self.logins:
            return own
        if not token:
            return _without_token(own)
        user = self._identities.known(token)
        if user is None:
            # Not in the threads that answer calls: the hub may let it wait.
            user = await asyncio.to_thread(self._identities.user_of, token)
        return _acting_for(user, own)


def _without_token(own: Caller) -> Caller:
    # Root needs no token of a hub to do what it likes.
    if own.uid == ROOT:
        return own
    raise PermissionDenied(
        f"processes of {own.user} act for users of the hub here, and yours shows no "
        "token of one; ask from a notebook of your server"
    )


def _acting_for(user: HubUser, own: Caller) -> Caller:
    if is_unnamed(user.name):
        raise PermissionDenied(
            f"the hub's user {user.name} is called as users of this host without a login "
            "are; have the hub give it another name"
        )
    return replace(own, user=user.name, groups=user.groups, is_admin=user.is_admin)
