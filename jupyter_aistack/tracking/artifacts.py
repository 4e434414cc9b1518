"""Files and folders that are stored with a run."""

from __future__ import annotations

import os

from jupyter_aistack.exceptions import InvalidRequest

from .store import Job, Store

UPLOAD_BYTES_PER_SECOND = 1 << 20
"""A slower upload counts as stuck."""


def upload(store: Store, path: str | os.PathLike[str]) -> Job:
    """The upload of a file or folder; it is read when its turn comes.

    Raises:
        InvalidRequest: it is not there.
    """
    name = os.fspath(path)
    # The working folder may have been deleted, which is nothing to an absolute path.
    absolute = os.path.normpath(name) if os.path.isabs(name) else os.path.abspath(name)
    if not os.path.exists(absolute):
        raise InvalidRequest(
            f"artifact: there is no file or folder {absolute}", field="path"
        )
    return Job(
        call=lambda: store.add_file(absolute),
        patience_seconds=lambda: size_of(absolute) / UPLOAD_BYTES_PER_SECOND,
    )


def size_of(path: str) -> int:
    """Bytes of a file, or of all files of a folder, as far as they can be seen."""
    names = [path]
    for folder, _, files in os.walk(path):
        names += [os.path.join(folder, name) for name in files]
    return sum(os.path.getsize(name) for name in names if os.path.isfile(name))
