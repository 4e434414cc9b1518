"""The sentences for what keeps a ledger's file from being written."""

from __future__ import annotations

from pathlib import Path

from jupyter_aistack.system.mounts import mount_of
from jupyter_aistack.system.storage import StorageProblem

_ELSEWHERE = "name a file elsewhere in AISTACK_LEDGER"
_SENTENCES = {
    StorageProblem.NOT_ALLOWED: (
        "cannot be written by this user ({mount}); make its folder writable, join the "
        "group that may write there, or {elsewhere}"
    ),
    StorageProblem.READ_ONLY: (
        "cannot be written because the file system ({mount}) is read-only; mount it "
        "for writing, or {elsewhere}"
    ),
    StorageProblem.FULL: (
        "cannot be written because the disk is full ({mount}); free some space, or "
        "{elsewhere}"
    ),
    StorageProblem.OVER_QUOTA: (
        "cannot be written because the disk quota of this user is used up ({mount}); "
        "remove some files, or {elsewhere}"
    ),
    StorageProblem.TOO_LARGE: (
        "cannot be written because files of this process may not grow so large; raise "
        "the limit (ulimit -f)"
    ),
    StorageProblem.NO_LOCKS: (
        "cannot be locked because the file system ({mount}) has no file locks; mount "
        "it with locks, or {elsewhere}"
    ),
    StorageProblem.FAILING: (
        "cannot be written because the file system ({mount}) reports input or output "
        "errors; look after it, or {elsewhere}"
    ),
    StorageProblem.NO_FOLDER: (
        "is in a folder that does not exist; make the folder, or {elsewhere}"
    ),
    StorageProblem.NOT_A_FOLDER: (
        "cannot be written because a part of its path is a file; name another file"
    ),
    StorageProblem.IS_FOLDER: "is a directory; name a file in it",
    StorageProblem.LINK: (
        "is a symbolic link to no file, or made by another user; name the file itself"
    ),
    StorageProblem.UNKNOWN: "cannot be opened ({mount}); {elsewhere}",
}


def storage_sentence(problem: StorageProblem, path: Path) -> str:
    """What is wrong with the place of a file and what to do, to go on after its name."""
    mount = mount_of(path) or "an unknown file system"
    return _SENTENCES[problem].format(mount=mount, elsewhere=_ELSEWHERE)
