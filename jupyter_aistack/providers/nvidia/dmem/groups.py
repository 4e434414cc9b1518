"""The control groups of leases: ``<root>/<base>/u<uid>/<lease>``, in a tree that
belongs to root alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from jupyter_aistack.exceptions import ProviderError

ROOT = Path("/sys/fs/cgroup")
BASE = "aistack"
REST = "rest"
"""The group without limits for processes that outlive their lease: a group with
processes cannot be removed.
"""
MOST_GROUPS = 512
"""Groups of one user at once."""


class Groups:
    """The tree of all users.

    Args:
        root: where control groups (version 2) are mounted.
        base: the folder below it that is ours.
        remove: how to remove a group.
    """

    def __init__(
        self,
        root: Path = ROOT,
        base: str = BASE,
        *,
        remove: Callable[[Path], object] = os.rmdir,
    ) -> None:
        self.root = root
        self.base = root / base
        self._remove = remove

    def path(self, uid: int, name: str) -> Path:
        """The group of a user's lease, there or not."""
        return self.base / f"u{uid}" / name

    def names(self, uid: int) -> list[str]:
        """The user's groups."""
        folder = self.base / f"u{uid}"
        names = (
            [path.name for path in folder.iterdir() if path.is_dir()]
            if folder.is_dir()
            else []
        )
        return sorted(name for name in names if name != REST)

    def has_processes(self, uid: int, name: str) -> bool:
        """Whether a user's group is there and has processes."""
        return bool(_processes(self.path(uid, name)))

    def forgotten(self, uid: int, before: float) -> list[str]:
        """The user's groups that have no process and were made before a time, in
        seconds since the epoch.
        """
        old = [
            name
            for name in self.names(uid)
            if self.path(uid, name).stat().st_mtime < before
        ]
        return [name for name in old if not _processes(self.path(uid, name))]

    def make(self, uid: int, name: str) -> Path:
        """A user's group, with the controller on all the way down: a gap would leave
        the limits without effect.

        Raises:
            ProviderError: it cannot be made.
        """
        group = self.path(uid, name)
        if not group.is_dir() and len(self.names(uid)) >= MOST_GROUPS:
            raise ProviderError(f"user {uid} has {MOST_GROUPS} control groups already")
        try:
            for folder in (self.base, group.parent, group):
                (folder.parent / "cgroup.subtree_control").write_text("+dmem")
                folder.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise ProviderError(
                f"the control group {group} cannot be made: {error.strerror}"
            ) from error
        return group

    def enter(self, group: Path, pid: int) -> None:
        """Move a process into a group. Raises `ProviderError`."""
        try:
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            message = (
                f"process {pid} cannot be moved to its control group: {error.strerror}"
            )
            raise ProviderError(message) from error

    def discard(self, uid: int, name: str) -> None:
        """Remove a group; its processes go on without limits. Raises
        `ProviderError`.
        """
        group = self.path(uid, name)
        rest = self.path(uid, REST)
        try:
            rest.mkdir(exist_ok=True)
            for pid in _processes(group):
                with contextlib.suppress(ProviderError):  # it has ended
                    self.enter(rest, pid)
            self._remove(group)
        except OSError as error:
            raise ProviderError(
                f"the control group {group} cannot be removed: {error.strerror}"
            ) from error


def _processes(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []
