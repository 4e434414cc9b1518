"""The Unix socket on which kernels and their children speak to the broker.

One JSON object per line each way: ``{"verb", "payload"}`` brings ``{"result"}`` or
``{"error"}``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_aistack.broker.api.line_server import LineServer, LineSession
from jupyter_aistack.core.wire.json_body import check_fields
from jupyter_aistack.exceptions import PermissionDenied
from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.server.kernels import KernelRegistry
from jupyter_aistack.system.peer import Peer, has_peer_credentials
from jupyter_aistack.system.processes import is_alive

if TYPE_CHECKING:
    from jupyter_aistack.broker.api.caller import Caller

FIELDS = frozenset({"verb", "payload"})
MAX_PATH_BYTES = 100  # the system allows 107
OWN_FOLDER = "aistack-socket-"


class SocketServer:
    """Listens for kernels.

    Args:
        context: answers the calls.
        kernels: identifies the kernel a process is.
        runtime_dir: where the socket is made, if its path is short enough.
    """

    def __init__(
        self, context: ServerContext, kernels: KernelRegistry, runtime_dir: str
    ) -> None:
        self._context = context
        self._kernels = kernels
        self._runtime_dir = runtime_dir
        self._server: LineServer | None = None
        self._path: Path | None = None

    async def start(self) -> str:
        """Start to listen; returns the socket's path, empty where the system cannot
        tell who calls.
        """
        if not has_peer_credentials():
            return ""
        self._path = _choose_path(Path(self._runtime_dir))
        remove_stale(self._path.parent)
        self._server = LineServer(self._session, self._context.log)
        await self._server.start(_listen(self._path))
        return str(self._path)

    async def close(self) -> None:
        """Stop listening, end the connections and take the socket away. Closing twice
        is allowed.
        """
        if self._server is not None:
            await self._server.close()
            self._server = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            if self._path.parent.name.startswith(OWN_FOLDER):
                self._path.parent.rmdir()
            self._path = None

    async def _session(self, peer: Peer) -> LineSession:
        return _KernelSession(self._context, await self._caller(peer))

    async def _caller(self, peer: Peer) -> Caller:
        pid, uid = peer
        if not peer.is_own_user:
            raise PermissionDenied(
                f"this socket serves uid {os.getuid()} only; you are uid {uid}"
            )
        if pid <= 0:
            raise PermissionDenied(
                "your process cannot be seen from the server's; run both in one process namespace"
            )
        return await self._kernels.caller_with_pid(pid, uid)


class _KernelSession(LineSession):
    """The calls of one process of this server's user.

    Args:
        context: answers them.
        caller: who the process is.
    """

    def __init__(self, context: ServerContext, caller: Caller) -> None:
        self._context = context
        self._caller = caller

    async def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        check_fields(message, FIELDS)
        verb = str(message.get("verb"))
        payload = message.get("payload", {})
        return {"result": await self._context.call(verb, payload, self._caller)}


def _choose_path(runtime_dir: Path) -> Path:
    """Jupyter's runtime directory, or a short private directory where its path is
    too long for a socket.
    """
    name = f"aistack-{os.getpid()}.sock"
    user_dir = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"))
    for folder in (runtime_dir, user_dir):
        path = folder / name
        if folder.is_dir() and len(os.fsencode(path)) <= MAX_PATH_BYTES:
            return path
    return Path(tempfile.mkdtemp(prefix=OWN_FOLDER, dir="/tmp")) / name


def _listen(path: Path) -> socket.socket:
    """A listening socket that no other user can open, not even for a moment."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Set before binding: a mode that is set afterwards comes a moment too late.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen()
    listener.setblocking(False)
    return listener


def remove_stale(folder: Path) -> None:
    """Take away the sockets in `folder` that dead servers of ours have left."""
    for path in folder.glob("aistack-*.sock"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            is_ours = stat.S_ISSOCK(status.st_mode) and status.st_uid == os.getuid()
            if is_ours and not _has_process(path) and not _is_answered(path):
                path.unlink()


def _has_process(path: Path) -> bool:
    pid = path.stem.removeprefix("aistack-")
    return pid.isdigit() and is_alive(int(pid), None)


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT)
