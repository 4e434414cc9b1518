"""Where MPS daemons of this user live: short, private folders on a local disk, each
daemon in a folder of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.system.files import write_atomic
from jupyter_aistack.system.processes import boot_id
from jupyter_aistack.system.users import is_root

from .users import PASSABLE, PRIVATE, is_passable

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
FOLDER = "aistack-mps"
_LISTS = 0o066
_ENTERS = 0o077
"""What others may not do in a folder of daemons: in root's they may pass through."""


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
        open_to_others = PASSABLE if is_passable(root) else PRIVATE
        try:
            root.mkdir(mode=PRIVATE, exist_ok=True)
            for folder in (self.path, self.pipes):
                folder.mkdir(mode=open_to_others, exist_ok=True)
            for folder in (self.logs, self.leases):
                folder.mkdir(mode=PRIVATE, exist_ok=True)
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


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where folders for daemons may lie.

    Attributes:
        runtime: the folder that the system has made for this user alone, if any.
        temporary: a folder in which everybody makes folders.
        notes: this user's own folder, for the name of a folder that nobody could guess.
    """

    runtime: Path | None
    temporary: Path
    notes: Path


def default_places(environment: Mapping[str, str] | None = None) -> Places:
    """The places of this host and user."""
    from jupyter_core.paths import jupyter_data_dir

    given = (os.environ if environment is None else environment).get(
        "XDG_RUNTIME_DIR", ""
    )
    return Places(
        runtime=Path(given) if given else None,
        temporary=Path("/tmp"),
        notes=Path(jupyter_data_dir()) / "aistack",
    )


def runtime_root(places: Places | None = None, *, mounts: Path = MOUNTS) -> Path:
    """The folder for all daemons of this user, whether it is there already or not.

    It lies in a folder that the system makes for the user where one exists and leaves
    enough path length for the sockets' names, else in the temporary folder: there under
    a name that all servers of the user know, and where somebody else has taken that,
    under a random name that is noted for them.

    Raises:
        ProviderError: there is no place that is private, local and short enough.
    """
    if not hasattr(os, "getuid"):
        raise ProviderError("MPS needs Linux")
    chosen = places or default_places()
    known = chosen.temporary / f"{FOLDER}-{os.getuid()}"
    # A folder once noted stays the user's, also when the other name is free again.
    candidates = [_read_note(_note(chosen)) or known]
    if chosen.runtime is not None and chosen.runtime.is_dir():
        candidates.insert(0, chosen.runtime / FOLDER)
    refusals = {candidate: _refusal(candidate, mounts) for candidate in candidates}
    for candidate, refusal in refusals.items():
        if not refusal:
            return candidate
    if os.path.lexists(known) and _not_private(known):
        noted = _noted_folder(chosen)
        refusals[noted] = _refusal(noted, mounts)
        if not refusals[noted]:
            return noted
    raise ProviderError(
        f"there is no folder for the pipes of MPS: {'; '.join(refusals.values())}"
    )


def _note(places: Places) -> Path:
    """Where the random name is noted, for this run of this machine: a home may be on
    many, and the temporary folder is emptied.
    """
    return places.notes / f"mps-folder-{short(boot_id())}"


def _noted_folder(places: Places) -> Path:
    """The folder with a random name that this user's servers have agreed on; made if
    need be.

    Raises:
        ProviderError: it cannot be made or noted.
    """
    note = _note(places)
    try:
        places.notes.mkdir(parents=True, exist_ok=True)
        with (places.notes / f"{note.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            noted = _read_note(note)
            if noted is None:
                made = tempfile.mkdtemp(prefix=f"{FOLDER}-", dir=places.temporary)
                noted = Path(made)
                write_atomic(note, str(noted))
            return noted
    except OSError as error:
        raise ProviderError(
            f"there is no folder for the pipes of MPS: {error.filename}: {error.strerror}"
        ) from error


def _read_note(note: Path) -> Path | None:
    """The folder that was noted, if it is there and this user's alone."""
    with contextlib.suppress(OSError):  # there is none, or it leads nowhere
        noted = Path(note.read_text())
        if not _not_private(noted):
            return noted
    return None


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
        or status.st_mode & (_LISTS if is_root() else _ENTERS)
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
