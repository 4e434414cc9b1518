"""The kernels of this server: which process is which, what people call them, and which
have ended.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jupyter_core.utils import ensure_async

from jupyter_aistack.core.model.kernel_report import Rename
from jupyter_aistack.exceptions import InvalidRequest

if TYPE_CHECKING:
    from jupyter_aistack.broker.api.caller import Caller

GRACE_SECONDS = 10.0
"""How long a kernel must look dead before its leases are released: a crashed kernel
is restarted within a few seconds.
"""
LABEL_SECONDS = 5.0
"""How long the name of a notebook is believed."""
AT_WORK = frozenset({"busy", "starting", "restarting"})
"""Jupyter's words for a kernel that is not waiting for its user."""


class KernelRegistry:
    """What the broker may know of a Jupyter server's kernels. Use it from the event
    loop.

    Args:
        serverapp: the Jupyter server.
    """

    def __init__(self, serverapp: Any) -> None:
        self._serverapp = serverapp
        self._labels: dict[str, tuple[str, float]] = {}
        self._paths: dict[str, set[str]] = {}
        self._known: set[str] = set()
        self._observed: dict[str, Any] = {}
        self._was_busy: set[str] = set()
        self._on_state: list[Callable[[str, bool], None]] = []
        self._missing_since: dict[str, float] = {}

    def pids(self) -> dict[str, int]:
        """The process of each running kernel, by kernel id; kernels that run elsewhere
        are left out.
        """
        pids = {
            kernel_id: getattr(self._provisioner(kernel_id), "pid", None)
            for kernel_id in self._ids()
        }
        return {
            kernel_id: pid for kernel_id, pid in pids.items() if isinstance(pid, int)
        }

    def _ids(self) -> list[str]:
        return list(self._serverapp.kernel_manager.list_kernel_ids())

    def _provisioner(self, kernel_id: str) -> Any:
        return getattr(
            self._serverapp.kernel_manager.get_kernel(kernel_id), "provisioner", None
        )

    # -- who is at work ----------------------------------------------------------------

    def running(self) -> frozenset[str]:
        """Ids of this server's kernels."""
        return frozenset(self._ids())

    def take_busy(self) -> frozenset[str]:
        """Kernels in which something runs, or has run since the last call however
        shortly, or that are being started.

        Jupyter's own account of a kernel's state leaves out what a page asks by itself
        when it is opened.
        """
        managers = self.observe()
        busy = {
            kernel_id
            for kernel_id, manager in managers.items()
            if _state(manager) in AT_WORK
        }
        was_busy = self._was_busy
        self._was_busy = set()
        return frozenset(managers) & (busy | was_busy)

    def busy(self) -> frozenset[str]:
        """Kernels in which a cell runs now."""
        managers = self.observe()
        return frozenset(
            kernel_id
            for kernel_id, manager in managers.items()
            if _state(manager) == "busy"
        )

    def observe(self) -> dict[str, Any]:
        """Hear of the state of every kernel from now on; the managers by kernel id."""
        managers = {
            kernel_id: self._serverapp.kernel_manager.get_kernel(kernel_id)
            for kernel_id in self._ids()
        }
        for kernel_id, manager in managers.items():
            if self._observed.get(kernel_id) is not manager and _has_state(manager):
                manager.observe(self._note_state, names="execution_state")
        self._observed = managers
        return managers

    def on_state(self, listener: Callable[[str, bool], None]) -> None:
        """Have `listener` called with a kernel's id, and whether it is busy, when that
        changes.
        """
        self._on_state.append(listener)

    def _note_state(self, change: Any) -> None:
        kernel_id = change["owner"].kernel_id
        if AT_WORK & {change["new"], change["old"]}:
            self._was_busy.add(kernel_id)
        for listener in self._on_state:
            listener(kernel_id, change["new"] == "busy")

    async def interrupt(self, kernel_id: str) -> bool:
        """Interrupt the cell that runs in a kernel of this server; False where none
        runs.
        """
        manager = self._serverapp.kernel_manager.get_kernel(kernel_id)
        if _state(manager) not in AT_WORK:
            return False
        await ensure_async(manager.interrupt_kernel())
        return True

    async def restart(self, kernel_id: str) -> None:
        """End a kernel of this server now, and start it again."""
        await ensure_async(
            self._serverapp.kernel_manager.restart_kernel(kernel_id, now=True)
        )

    # -- who is asking -----------------------------------------------------------------

    async def caller_with_pid(self, pid: int, uid: int) -> Caller:
        """The caller that process `pid` is: a kernel of this server, a process that
        such a kernel has started, or any other process.
        """
        from jupyter_aistack.broker.api.caller import Caller
        from jupyter_aistack.system.users import current_user

        kernels = {
            kernel_pid: kernel_id for kernel_id, kernel_pid in self.pids().items()
        }
        if pid in kernels:
            kernel_pid: int | None = pid
            is_itself = True
        else:
            kernel_pid, is_itself = await asyncio.to_thread(_kernel_of, pid, kernels)
        kernel_id = kernels.get(kernel_pid, "") if kernel_pid is not None else ""
        return Caller(
            user=current_user(),
            uid=uid,
            pid=pid,
            kernel_id=kernel_id if is_itself else "",
            kernel_pid=kernel_pid if is_itself else None,
            parent="" if is_itself else kernel_id,
            label=await self.label(kernel_id) if kernel_id else "",
        )

    async def caller_in_browser(self, kernel_id: str | None = None) -> Caller:
        """The caller a browser is: it acts for a kernel it names, or for this server.

        Users of a single-user server act as the login it runs under; that login
        owns its kernels' leases.

        Raises:
            InvalidRequest: no such kernel runs here.
        """
        from jupyter_aistack.broker.api.caller import Caller
        from jupyter_aistack.system.users import current_user

        if kernel_id is None:
            return Caller(
                user=current_user(),
                uid=os.getuid(),
                pid=os.getpid(),
                label="Jupyter server",
            )
        pid = self.pids().get(kernel_id)
        if pid is None:
            raise InvalidRequest(
                f"kernel_id: no kernel {kernel_id[:64]!r} runs on this server",
                field="kernel_id",
            )
        label = await self.label(kernel_id)
        return Caller(
            user=current_user(),
            uid=os.getuid(),
            pid=pid,
            kernel_id=kernel_id,
            kernel_pid=pid,
            label=label,
        )

    async def label(self, kernel_id: str) -> str:
        """The path of the notebook that uses a kernel, relative to the server's root;
        empty when nothing is known.
        """
        label, at = self._labels.get(kernel_id, ("", 0.0))
        if not label or time.monotonic() - at > LABEL_SECONDS:
            label = await self._look_up_label(kernel_id)
            self._labels[kernel_id] = (label, time.monotonic())
        return label

    async def renames(self) -> dict[str, Rename]:
        """The kernels whose notebooks have been renamed or moved."""
        renames: dict[str, Rename] = {}
        for session in await self._sessions():
            kernel_id = (session.get("kernel") or {}).get("id")
            path = _path_of(session)
            if not kernel_id or not path:
                continue
            paths = self._paths.setdefault(kernel_id, set())
            paths.add(path)
            if len(paths) > 1:
                former = frozenset(paths - {path})
                renames[kernel_id] = Rename(former=former, label=path)
        return renames

    async def _look_up_label(self, kernel_id: str) -> str:
        for session in await self._sessions():
            if (session.get("kernel") or {}).get("id") == kernel_id:
                path = _path_of(session)
                self._paths.setdefault(kernel_id, set()).add(path)
                return path
        return ""

    async def _sessions(self) -> list[Mapping[str, Any]]:
        try:
            sessions: list[Mapping[str, Any]] = await ensure_async(
                self._serverapp.session_manager.list_sessions()
            )
        except Exception:
            # Another session manager may be plugged in; without a label all goes on.
            self._serverapp.log.debug("sessions cannot be listed", exc_info=True)
            return []
        return sessions

    # -- which have ended --------------------------------------------------------------

    async def terminated(self) -> frozenset[str]:
        """Kernels this server ran that have been dead for a while; call it every few
        seconds.

        A kernel being started, or crashed and about to be restarted, is not among
        them, and no kernel of another server ever is.
        """
        now = time.monotonic()
        running = {
            kernel_id for kernel_id in self._ids() if not await self._is_dead(kernel_id)
        }
        self._known |= set(self._ids())
        missing = self._known - running
        self._missing_since = {
            kernel_id: self._missing_since.get(kernel_id, now) for kernel_id in missing
        }
        terminated = frozenset(
            kernel_id
            for kernel_id, since in self._missing_since.items()
            if now - since >= GRACE_SECONDS
        )
        # A kernel that Jupyter still lists is reported again: its leases may not all be
        # released.
        self._known -= terminated - set(self._ids())
        self._labels = {
            kernel_id: label
            for kernel_id, label in self._labels.items()
            if kernel_id in self._known
        }
        self._paths = {
            kernel_id: paths
            for kernel_id, paths in self._paths.items()
            if kernel_id in self._known
        }
        return terminated

    async def _is_dead(self, kernel_id: str) -> bool:
        provisioner = self._provisioner(kernel_id)
        # A kernel that has not been started yet would answer "ended" to a poll.
        if getattr(provisioner, "pid", None) is None:
            return False
        return await provisioner.poll() is not None


def _has_state(manager: Any) -> bool:
    return hasattr(manager, "has_trait") and bool(manager.has_trait("execution_state"))


def _state(manager: Any) -> str:
    return str(getattr(manager, "execution_state", "") or "")


def _kernel_of(pid: int, kernels: Mapping[int, str]) -> tuple[int | None, bool]:
    """The nearest kernel's process, as it was launched, above `pid`, and whether `pid`
    is that kernel itself, which was started through another program.
    """
    from jupyter_aistack.system.kernel_processes import is_kernel
    from jupyter_aistack.system.processes import ancestors

    for ancestor in ancestors(pid):
        if ancestor in kernels:
            return ancestor, is_kernel(pid, ancestor)
    return None, False


def _path_of(session: Mapping[str, Any]) -> str:
    is_file = session.get("type") in ("notebook", "file")
    name = session.get("path") if is_file else session.get("name")
    return str(name or session.get("path") or "")
