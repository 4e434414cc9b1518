"""The socket that the host broker listens on: its file, its lock, and whose they are."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.system.broker_path import MAX_PATH_BYTES
from jupyter_aistack.system.peer import peer_of
from jupyter_aistack.system.permissions import is_guarded

BACKLOG = 512
"""Connections that may wait until they are accepted."""
SOCKET_MODE = 0o666
"""Everybody may connect: it is read off the connection who that is."""
FOLDER_MODE = 0o755


@dataclass(eq=False)
class BrokerSocket:
    """A socket that listens, and the lock that makes this broker the only one there.

    Attributes:
        path: its file.
        listener: the socket.
        lock: descriptor of the locked file beside it.
        inode: device and inode of its file.
    """

    path: Path
    listener: socket.socket
    lock: int
    inode: tuple[int, int]

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to this socket."""
        return _inode(self.path) == self.inode

    def listen_again(self) -> None:
        """Make the file anew after it was taken away; the listener is another then.

        Raises:
            InvalidRequest: something else is there now, or the folder cannot be used.
        """
        _make_folder(self.path.parent)
        _remove_stale(self.path)
        self.listener = _bind(self.path)
        self.inode = _inode(self.path)

    def close(self) -> None:
        """Stop listening. The file stays: what was granted is still held, and who finds
        no file grants from a ledger of their own.
        """
        self.listener.close()
        os.close(self.lock)


def listen(path: Path, inherited: socket.socket | None = None) -> BrokerSocket:
    """Listen at `path`, as the only broker there.

    Args:
        path: where; its folder is made where it is missing.
        inherited: the socket that systemd has made there.

    Raises:
        InvalidRequest: the path cannot be used, or another broker listens there; the
            sentence names its process.
    """
    check_length(path)
    _make_folder(path.parent)
    lock = _lock(path)
    try:
        if inherited is not None:
            return BrokerSocket(path, inherited, lock, _inode(path))
        _remove_stale(path)
        listener = _bind(path)
    except BaseException:
        os.close(lock)
        raise
    return BrokerSocket(path, listener, lock, _inode(path))


def check_length(path: Path) -> None:
    """Raises `InvalidRequest` where no socket can have that path."""
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise _unusable(
            path,
            f"the path has {length} bytes, and a socket's may have {MAX_PATH_BYTES}",
        )


def _make_folder(folder: Path) -> None:
    """The folder, which nobody but root and this user may change: whoever could put
    another socket there would be taken for the broker.
    """
    try:
        if not folder.is_dir():
            folder.mkdir(mode=FOLDER_MODE)
    except OSError as error:
        raise _unusable(
            folder, f"the folder cannot be made: {error.strerror}"
        ) from None
    if not is_guarded(folder, {0, os.getuid()}):
        raise _unusable(
            folder, "others than root and the broker's user may change the folder"
        )


def _lock(path: Path) -> int:
    """Hold the lock beside the socket; it says which process holds it."""
    file = path.with_name(f"{path.name}.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # Closed to others: whoever may read a file may also hold its lock.
        descriptor = os.open(file, flags, 0o600)
    except OSError as error:
        _refuse_if_served(path)
        raise _unusable(path, f"{file} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise _taken(path, holder) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _remove_stale(path: Path) -> None:
    """Take away the socket that a broker has left which was killed."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise _unusable(path, "there is a file that is no socket")
    if status.st_uid not in (0, os.getuid()):
        raise _unusable(path, f"the socket there belongs to uid {status.st_uid}")
    _refuse_if_served(path)
    path.unlink(missing_ok=True)


def _refuse_if_served(path: Path) -> None:
    """Raises `InvalidRequest` where a process listens at `path`; it is named."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        failure = probe.connect_ex(str(path))
        if failure in (0, errno.EAGAIN):  # EAGAIN: more wait than it has accepted
            raise _taken(path, str(peer_of(probe).pid) if failure == 0 else "")


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        # Not by the umask, which is that of all threads; nobody connects before it
        # listens, and nobody else may put another file there.
        path.chmod(SOCKET_MODE)
    except OSError as error:
        listener.close()
        raise _unusable(path, f"no socket can be made: {error.strerror}") from None
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _inode(path: Path) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        status = path.lstat()
        return status.st_dev, status.st_ino
    return 0, 0


def _unusable(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(f"socket: {path}: {why}", field="socket")


def _taken(path: Path, pid: str) -> InvalidRequest:
    process = f"process {pid}" if pid else "another process"
    return InvalidRequest(
        f"socket: a host broker runs already: {process} listens at {path}",
        field="socket",
    )
