"""Where MPS daemons of this user live: short, private folders on a local disk, each
daemon in a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyter_aistack.exceptions import ProviderError

MAX_SOCKET_PATH = 107
"""Bytes of a UNIX socket's path, without the zero that ends it (Linux, unix(7))."""
_LONGEST = "g12345678/l0123456789abcdef/control"
_REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "afs",
    "glusterfs",
    "panfs",
    "9p",
    "fuse",
)
"""File systems that cannot hold a daemon's sockets, as the mount table calls them."""
MOUNTS = Path("/proc/self/mounts")


@dataclass(frozen=True)
class DaemonPaths:
    """One daemon's folder."""

    path: Path

    @property
    def pipes(self) -> Path:
        return self.path / "p"

    @property
    def logs(self) -> Path:
        return self.path / "log"

    @property
    def leases(self) -> Path:
        return self.path / "leases"

    def create(self) -> None:
        """Make it, with what belongs in it. Raises `ProviderError`."""
        root = self.path.parent
        try:
            for folder in (root, self.path, self.pipes, self.logs, self.leases):
                folder.mkdir(mode=0o700, exist_ok=True)
            refusal = _not_private(
                root
            )  # checked once it is there, and cannot be another's any more
        except OSError as error:
            raise ProviderError(
                f"the MPS folder {self.path} cannot be made: {error.strerror}"
            ) from error
        if refusal:
            raise ProviderError(f"there is no folder for the pipes of MPS: {refusal}")


def short(name: str) -> str:
    """A name for files and namespaces that stands for `name`: 16 hexadecimal digits."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def runtime_root(
    environment: Mapping[str, str] | None = None, *, mounts: Path = MOUNTS
) -> Path:
    """The folder for all daemons of this user, whether it is there already or not.

    It lies in ``XDG_RUNTIME_DIR`` where that exists and leaves enough path length for
    the sockets' names, else in ``/tmp``.

    Raises:
        ProviderError: there is no place that is private, local and short enough.
    """
    if not hasattr(os, "getuid"):
        raise ProviderError("MPS needs Linux")
    given = (os.environ if environment is None else environment).get(
        "XDG_RUNTIME_DIR", ""
    )
    candidates = [Path(given) / "aistack-mps"] if given and os.path.isdir(given) else []
    candidates.append(Path("/tmp") / f"aistack-mps-{os.getuid()}")
    refusals = {candidate: _refusal(candidate, mounts) for candidate in candidates}
    for candidate, refusal in refusals.items():
        if not refusal:
            return candidate
    raise ProviderError(
        f"there is no folder for the pipes of MPS: {'; '.join(refusals.values())}"
    )


def _refusal(root: Path, mounts: Path) -> str:
    longest = root / short("") / "p" / _LONGEST
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH:
        return f"{root} is too long for the path of a socket ({MAX_SOCKET_PATH} bytes)"
    kind = file_system(root, mounts)
    if kind.startswith(_REMOTE):
        return f"{root} is on a {kind} file system, which cannot hold sockets"
    return _not_private(root) if os.path.lexists(root) else ""


def _not_private(root: Path) -> str:
    """Why a folder is not ours alone; empty when it is."""
    status = root.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.getuid()
        or status.st_mode & 0o077
    ):
        return f"{root} belongs to another user, or others may enter it"
    return ""


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """The type of the file system a path lies on, as the mount table names it; empty
    when unknown.
    """
    try:
        lines = [line.split(" ") for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    place = Path(os.path.realpath(path))
    holding = [(len(at), kind) for _, at, kind, *_ in lines if place.is_relative_to(at)]
    # Of two mounts at one point the later covers the earlier.
    return max(reversed(holding), key=lambda mount: mount[0], default=(0, ""))[1]
