"""The Unix socket on which kernels and their children speak to the broker.

One JSON object per line each way: ``{"verb", "payload"}`` brings ``{"result"}`` or
``{"error"}``. The operating system's kernel identifies the peer
(``SO_PEERCRED``); nothing a client says of itself is believed, so no secret is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_aistack.exceptions import AIStackError, InvalidRequest, PermissionDenied
from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.server.json_body import check_fields, read_object
from jupyter_aistack.server.kernels import KernelRegistry
from jupyter_aistack.system.peer import has_peer_credentials, peer_of
from jupyter_aistack.system.processes import is_alive

if TYPE_CHECKING:
    from jupyter_aistack.broker.api.caller import Caller

MAX_LINE_BYTES = 2**20
MAX_PATH_BYTES = 100  # the system allows 107
OWN_FOLDER = "aistack-socket-"
FIELDS = frozenset({"verb", "payload"})


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
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._path: Path | None = None

    async def start(self) -> str:
        """Start to listen; returns the socket's path, empty where the system cannot
        tell who calls.
        """
        if not has_peer_credentials():
            return ""
        self._path = _choose_path(Path(self._runtime_dir))
        remove_stale(self._path.parent)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=_listen(self._path), limit=MAX_LINE_BYTES
        )
        return str(self._path)

    async def close(self) -> None:
        """Stop listening, end the connections and take the socket away. Closing twice
        is allowed.
        """
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            if self._path.parent.name.startswith(OWN_FOLDER):
                self._path.parent.rmdir()
            self._path = None

    # -- a connection ------------------------------------------------------------------

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._answer_calls(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer_calls(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        caller = await self._caller_or_error(writer)
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                # The rest of such a line cannot be distinguished from the next call, so
                # the connection ends.
                too_long = InvalidRequest(
                    f"a line may hold {MAX_LINE_BYTES} bytes", field="body"
                )
                return await _send(writer, {"error": too_long.as_dict()})
            if not line:
                return None
            # Answered only now: closing before the first call breaks the caller's pipe.
            if isinstance(caller, AIStackError):
                return await _send(writer, {"error": caller.as_dict()})
            await _send(writer, await self._answer(line, caller))

    async def _caller_or_error(
        self, writer: asyncio.StreamWriter
    ) -> Caller | AIStackError:
        try:
            return await self._caller(writer)
        except AIStackError as error:
            return error

    async def _caller(self, writer: asyncio.StreamWriter) -> Caller:
        peer = peer_of(writer.get_extra_info("socket"))
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

    async def _answer(self, line: bytes, caller: Caller) -> dict[str, Any]:
        try:
            message = read_object(line)
            check_fields(message, FIELDS)
            verb = str(message.get("verb"))
            payload = message.get("payload", {})
            return {"result": await self._context.call(verb, payload, caller)}
        except AIStackError as error:
            return {"error": error.as_dict()}
        except Exception:
            self._context.log.exception("a call on the socket failed")
            failure = AIStackError("the server failed to answer; its log says why")
            return {"error": failure.as_dict()}


async def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


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
