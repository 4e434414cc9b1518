"""Who may change what a file says."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

_OTHERS = stat.S_IWGRP | stat.S_IWOTH
MAX_LINKS = 40
"""Links on the way to a file that Linux follows."""


def guarded(
    folders: Iterable[str], names: Iterable[str], owners: Collection[int] | None
) -> list[str]:
    """The folders in which the files of these names, where there are any, are guarded
    by `owners`; None is all folders.
    """
    wanted = tuple(names)
    return [
        folder
        for folder in folders
        if owners is None
        or all(
            is_guarded(file, owners)
            for file in (Path(folder, name) for name in wanted)
            if os.path.lexists(file)
        )
    ]


def is_guarded(path: Path, owners: Collection[int]) -> bool:
    """Whether nobody but `owners` (user ids) may change a file, or put another in its
    place: it, all folders above it and all links that lead to it are theirs, and others
    may not write there.
    """
    try:
        return all(_is_of(each, owners) for each in _way_to(path))
    except OSError:
        return False


def closed_to_others(program: Path) -> Path | None:
    """What keeps users other than its owner from running a program: a folder above it
    that they may not enter, or its file; None if nothing does. Links are followed.
    """
    resolved = program.resolve()
    for path in (*reversed(resolved.parents), resolved):
        try:
            mode = path.stat().st_mode
        except OSError:
            return path
        if not mode & stat.S_IXOTH:
            return path
    return None


def _way_to(path: Path) -> Iterator[Path]:
    """All that is passed on the way to a file, links that are followed included.

    Raises:
        OSError: links go round in a circle.
    """
    here = Path("/")
    yield here
    left = list(reversed(path.absolute().parts[1:]))
    followed = 0
    while left:
        name = left.pop()
        if name == os.pardir:
            here = here.parent
            continue
        yield here / name
        if not (here / name).is_symlink():
            here /= name
            continue
        followed += 1
        if followed > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = Path(os.readlink(here / name))
        if target.is_absolute():
            here = Path("/")
        left += reversed([part for part in target.parts if part != target.anchor])


def _is_of(path: Path, owners: Collection[int]) -> bool:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):  # nobody can write one, and it has no mode
        return status.st_uid in owners
    is_closed = not status.st_mode & _OTHERS
    # In such a folder nobody may move or remove what is another's.
    is_sticky = bool(status.st_mode & stat.S_ISVTX) and stat.S_ISDIR(status.st_mode)
    return status.st_uid in owners and (is_closed or is_sticky)
