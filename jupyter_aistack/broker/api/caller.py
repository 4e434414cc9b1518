"""Who is asking, and what they may see and change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jupyter_aistack.broker.liveness import is_here
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.core.model.roles import (
    REACHES,
    Reach,
    RoleSettings,
    Standing,
    entitled,
)
from jupyter_aistack.core.wire.visibility import Visibility
from jupyter_aistack.exceptions import PermissionDenied
from jupyter_aistack.system.process_users import uid_of
from jupyter_aistack.system.processes import ancestors

MAX_LABEL = 512
"""Characters of a label, an id or a name that a caller gives."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who is asking.

    Attributes:
        user: login name.
        uid: numeric user id.
        pid: the process that asks; None when it is a browser.
        kernel_id: the kernel that process is, or a browser acts for; empty for none.
        kernel_pid: that kernel's process, as it was launched.
        parent: the kernel that started the process, or an ancestor of it, and that it
            is not itself: a script in a shell escape, say; empty for none.
        label: the notebook's path, for people.
        is_admin: may change what belongs to others, whatever the settings say of the
            user.
        groups: the groups that the transport vouches for; None for the Unix groups of
            the login.
    """

    user: str
    uid: int
    pid: int | None = None
    kernel_id: str = ""
    kernel_pid: int | None = None
    parent: str = ""
    label: str = ""
    is_admin: bool = False
    groups: frozenset[str] | None = None

    @property
    def kind(self) -> HolderKind:
        """What this caller is as a holder."""
        return HolderKind.KERNEL if self.kernel_id else HolderKind.PROCESS

    @property
    def owner_id(self) -> str:
        """Id under which this caller's leases are kept."""
        return self.kernel_id or f"pid-{self.pid}"

    @property
    def account_id(self) -> str:
        """Id under which it is recorded what this caller uses: a process that a kernel
        has started is that kernel's work.
        """
        return self.parent or self.owner_id

    def owns(self, holder: Holder) -> bool:
        """Whether a holder is this caller, or a worker, a run or a process of its
        own.
        """
        is_below = holder.user == self.user and holder.parent == self.owner_id
        return self._is_here(holder) and (is_below or self.is_holder(holder))

    def is_holder(self, holder: Holder) -> bool:
        """Whether a holder is this caller itself."""
        own = (self.user, self.kind, self.owner_id)
        is_called_so = own == (holder.user, holder.kind, holder.id)
        return is_called_so and self._is_here(holder)

    def _is_here(self, holder: Holder) -> bool:
        """Whether ids of processes mean the same to both; those of kernels always do."""
        return bool(self.kernel_id) or is_here(holder)


class Access:
    """What callers may see and change: the table of `core.model.roles`, for the roles
    that the settings give them.

    Args:
        roles: who has which role.
        show_names: whether users see the names of others.
        groups: gives the Unix groups of a login.
    """

    def __init__(
        self,
        *,
        roles: RoleSettings,
        show_names: bool,
        groups: Callable[[str], frozenset[str]],
    ) -> None:
        self._roles = roles
        self._show_names = show_names
        self._groups = groups

    def groups_of(self, caller: Caller) -> frozenset[str]:
        """The groups of a caller's user."""
        if caller.groups is not None:
            return caller.groups
        return self._groups(caller.user)

    def standing(self, caller: Caller) -> Standing:
        """The roles of a caller."""
        roles = self._roles
        if caller.is_admin or self._is_listed(roles.admins, caller):
            return Standing(is_admin=True)
        managed = (
            queue
            for queue, names in roles.managers.items()
            if self._is_listed(names, caller)
        )
        return Standing(
            is_operator=self._is_listed(roles.operators, caller),
            queues=frozenset(managed),
        )

    def _is_listed(self, names: frozenset[str], caller: Caller) -> bool:
        """Whether a caller is in a list of logins and ``@group`` names."""
        if caller.user in names:
            return True
        listed_groups = {name[1:] for name in names if name.startswith("@")}
        # Asked for last: groups may come from a directory server.
        return bool(listed_groups) and bool(listed_groups & self.groups_of(caller))

    def visibility(self, caller: Caller) -> Visibility:
        """What a caller sees of others."""
        if self._show_names:
            return Visibility(user=caller.user, sees_names=True)
        standing = self.standing(caller)
        return Visibility(
            user=caller.user,
            sees_names=standing.is_admin or standing.is_operator,
            queues=standing.queues,
        )

    def check_verb(self, verb: str, caller: Caller) -> None:
        """Refuse a verb that none of the caller's roles may use on anything.

        Raises:
            PermissionDenied: none may.
        """
        is_for_users = REACHES[verb].user is not Reach.NONE
        if not is_for_users and not self.standing(caller).may_use(verb):
            raise _not_entitled(verb, caller)

    def check_queue(self, verb: str, caller: Caller, queue: str) -> None:
        """Refuse a verb about a queue that the caller may not use there.

        Raises:
            PermissionDenied: none of the caller's roles may.
        """
        if not self.standing(caller).may(verb, queue):
            raise _not_entitled(verb, caller)

    def check_owner(
        self, verb: str, holder: Holder, queue: str, caller: Caller
    ) -> None:
        """Refuse to change a lease or a request of another user, unless the caller has
        a role that may.

        Raises:
            PermissionDenied: neither.
        """
        is_own = holder.user == caller.user and REACHES[verb].user is not Reach.NONE
        if is_own or self.standing(caller).may(verb, queue):
            return
        sees = self.visibility(caller).sees(holder.user, queue)
        owner = holder.user if sees else "another user"
        who = _listed(["them", *(role.plural for role in entitled(verb))])
        raise PermissionDenied(f"that belongs to {owner}; {verb} is for {who} only")

    def check_process(self, pid: int, caller: Caller) -> None:
        """Refuse to take another user's process for the caller's: what is done to a
        lease would be done to it. What the caller has started may be another user's.

        Raises:
            PermissionDenied: it is another user's.
        """
        uid = uid_of(pid)
        is_own = uid in (None, caller.uid) or caller.is_admin
        if not is_own and caller.pid not in ancestors(pid):
            raise PermissionDenied(f"process {pid} belongs to another user")


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence: ``them, operators and admins``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _not_entitled(verb: str, caller: Caller) -> PermissionDenied:
    roles = entitled(verb)
    who = " and ".join(role.plural for role in roles)
    settings = " or ".join(role.setting for role in roles)
    return PermissionDenied(
        f"{verb} is for {who} only, and {caller.user} is none here; the administrator "
        f"of the server can add the login to {settings}"
    )
