"""Who is asking, and what they may see and change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jupyter_aistack.broker.liveness import is_here
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.core.wire.visibility import Visibility
from jupyter_aistack.exceptions import PermissionDenied

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
    """

    user: str
    uid: int
    pid: int | None = None
    kernel_id: str = ""
    kernel_pid: int | None = None
    parent: str = ""
    label: str = ""
    is_admin: bool = False

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
    """What callers may see and change.

    Args:
        admins: logins and ``@group`` names that may change what belongs to others, and
            reserve.
        show_names: whether users see the names of others.
        groups: gives the Unix groups of a login.
    """

    def __init__(
        self,
        *,
        admins: frozenset[str],
        show_names: bool,
        groups: Callable[[str], frozenset[str]],
    ) -> None:
        self._admins = admins
        self._show_names = show_names
        self._groups = groups

    def groups_of(self, caller: Caller) -> frozenset[str]:
        """The Unix groups of a caller's user."""
        return self._groups(caller.user)

    def visibility(self, caller: Caller) -> Visibility:
        """What a caller sees of others."""
        sees_names = self._show_names or self.is_admin(caller)
        return Visibility(user=caller.user, sees_names=sees_names)

    def is_admin(self, caller: Caller) -> bool:
        """Whether a caller may change what belongs to others, and reserve."""
        if caller.is_admin or caller.user in self._admins:
            return True
        admin_groups = {name[1:] for name in self._admins if name.startswith("@")}
        # Asked for last: groups may come from a directory server.
        return bool(admin_groups) and bool(admin_groups & self.groups_of(caller))

    def check_admin(self, caller: Caller, what: str) -> None:
        """Refuse what only admins may do; `what` begins the sentence.

        Raises:
            PermissionDenied: the caller is none.
        """
        if not self.is_admin(caller):
            raise PermissionDenied(
                f"{what} by admins only, and {caller.user} is none here; the "
                "administrator of the server can add the login to AIStack.admins"
            )

    def check_owner(self, holder: Holder, caller: Caller) -> None:
        """Only the user who holds it, or an admin, may change a lease or a request.

        Raises:
            PermissionDenied: the caller is neither.
        """
        if holder.user != caller.user and not self.is_admin(caller):
            owner = holder.user if self._show_names else "another user"
            raise PermissionDenied(
                f"that belongs to {owner}; only they or an admin may change it"
            )
