"""Who may change what a file says."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


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
    place: it and all folders above it are theirs, and others may not write there.
    """
    try:
        resolved = path.resolve(strict=True)
        return all(_is_of(each, owners) for each in (resolved, *resolved.parents))
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


def _is_of(path: Path, owners: Collection[int]) -> bool:
    status = path.stat()
    is_closed = not status.st_mode & _OTHERS
    # In such a folder nobody may move or remove what is another's.
    is_sticky = bool(status.st_mode & stat.S_ISVTX) and stat.S_ISDIR(status.st_mode)
    return status.st_uid in owners and (is_closed or is_sticky)
