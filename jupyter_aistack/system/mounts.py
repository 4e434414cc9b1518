"""Which file system a path is on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_NETWORK = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "panfs",
        "pvfs2",
        "smb3",
        "smbfs",
    }
)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A mounted file system.

    Attributes:
        folder: where it is mounted.
        kind: its type as Linux names it: ``ext4``, ``nfs4``.
    """

    folder: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.folder}"

    @property
    def is_network(self) -> bool:
        """Whether several hosts may have it mounted: what they map of a file is not
        shared between them.
        """
        return self.kind in _NETWORK


def mount_of(path: Path, mounts: Path = _MOUNTS) -> Mount | None:
    """The file system a path is on, or will be once it is made; None where that cannot
    be told.

    Args:
        mounts: a file as ``/proc/self/mountinfo``.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape")
        resolved = os.path.realpath(path)
    except OSError:
        return None
    best: Mount | None = None
    for line in lines.splitlines():
        mount = _read(line)
        # Of several at one place the last hides the others.
        if mount is not None and _is_below(resolved, mount.folder):
            is_nearer = best is None or len(mount.folder) >= len(best.folder)
            best = mount if is_nearer else best
    return best


def _read(line: str) -> Mount | None:
    place, separator, source = line.partition(" - ")
    fields = place.split()
    if not separator or len(fields) < 5:
        return None
    folder = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4])
    return Mount(folder=folder, kind=source.split()[0])


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
