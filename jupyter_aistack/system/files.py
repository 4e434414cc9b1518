"""Files that are replaced whole: no reader, and no crash, leaves half of a file."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

PRIVATE = 0o600


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader finds either the old content or the new.

    Raises:
        OSError: the file cannot be written; the old file is as it was.
    """
    with replacing(path) as part:
        if isinstance(content, str):
            part.write_text(content, encoding="utf-8")
        else:
            part.write_bytes(content)


def create_atomic(path: Path, content: bytes) -> None:
    """Make a file for its owner alone: nobody finds it empty or in part, and of several
    processes one makes it.

    Raises:
        FileExistsError: there is one.
        OSError: it cannot be made.
    """
    part = _part_of(path, ".new")
    try:
        with open(_created(part, PRIVATE), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(
    path: Path, *, suffix: str = ".new", is_durable: bool = False
) -> Iterator[Path]:
    """A path beside `path` to write to; the file is put in place when the block ends
    well, and removed when it raises.

    Args:
        path: the file to replace.
        suffix: how the temporary file's name ends, for libraries that choose a format
            by it. The default matches no pattern such as ``*.json``.
        is_durable: write the content to the disk before it is put in place, so that a
            power cut leaves the old file and not an empty file.
    """
    part = _part_of(path, suffix)
    os.close(_created(part, 0o666))
    try:
        yield part
        if is_durable:
            _sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _part_of(path: Path, suffix: str) -> Path:
    """Where a file is written before it is put in place. Processes and threads may write
    the same file at once: each needs its own.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{suffix}")


def _created(path: Path, mode: int) -> int:
    """A descriptor of a new file. In a folder that others may write, nobody can have put
    a link in its place.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(path, flags, mode)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
