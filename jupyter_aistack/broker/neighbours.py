"""Other users at work on this host, where no broker of the host grants to all of them:
each may be granted what another holds already.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator

from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.command_lines import command_of
from jupyter_aistack.system.process_users import uid_of
from jupyter_aistack.system.users import current_user, login_of

from .broker import Broker

LOOK_SECONDS = 60.0
"""Between two looks: a look goes through all processes of the host."""
FIRST_UID = 1000
"""The lowest number of a person (``UID_MIN`` of shadow-utils); those below are services."""
NOBODY = 65534
_SERVER = re.compile(r"jupyter[-_ ]?(lab|server|notebook)\b|jupyterhub[-_]singleuser")
"""How commands of Jupyter servers are called, by any of their usual launchers."""


def all_pids() -> Iterator[int]:
    """The processes of this host that can be seen, by number."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdigit():
            yield int(name)


class Neighbours:
    """Looks for other people who use this host as the broker's own user does.

    Args:
        broker: knows devices and leases.
        show_names: whether people see the names of others.
        clock: seconds on a clock that is never set.
        pids: gives the processes of the host.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        show_names: bool = True,
        clock: Callable[[], float] = time.monotonic,
        pids: Callable[[], Iterable[int]] = all_pids,
    ) -> None:
        self._broker = broker
        self._show_names = show_names
        self._clock = clock
        self._pids = pids
        self._looked_at = float("-inf")
        self._problem = ""

    def problems(self) -> tuple[str, ...]:
        """One sentence where there is such a person; a minute old at most."""
        if self._clock() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = self._clock()
            self._problem = next(self._seen(), "")
        return (self._problem,) if self._problem else ()

    def _seen(self) -> Iterator[str]:
        """What was seen, the surest first."""
        yield from self._leases()
        yield from self._gpu_processes()
        yield from self._servers()

    def _leases(self) -> Iterator[str]:
        try:
            leases = self._broker.leases()
        except AIStackError:
            return
        for lease in leases:
            if lease.holder.user != current_user():
                yield self._sentence(lease.holder.user, "has a lease")

    def _gpu_processes(self) -> Iterator[str]:
        for device in self._broker.inventory().devices:
            for process in device.processes or ():
                uid = uid_of(process.pid)
                if _is_other_person(uid):
                    yield self._sentence(login_of(uid or 0), "uses a GPU")

    def _servers(self) -> Iterator[str]:
        for pid in self._pids():
            uid = uid_of(pid)
            if _is_other_person(uid) and _SERVER.search(command_of(pid)):
                yield self._sentence(login_of(uid or 0), "runs a Jupyter server")

    def _sentence(self, user: str, what: str) -> str:
        who = user if self._show_names else "another user"
        return (
            f"several users share this host ({who} {what}) and no host broker grants to "
            "all of them, so that one may be given what another holds; its "
            "administrator can set one up with `jupyter aistack broker install`"
        )


def _is_other_person(uid: int | None) -> bool:
    if uid is None or uid in (os.getuid(), NOBODY):
        return False
    return uid >= FIRST_UID
