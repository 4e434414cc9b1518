"""Putting the files of the service in place, and taking exactly those away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.system.files import write_atomic

from .service_units import ServiceFile, is_unchanged

FILE_MODE = 0o644


class FileState(StrEnum):
    """What is at the place of a file."""

    MISSING = "missing"
    SAME = "same"
    OUTDATED = "outdated"  # as another version, or another user, has installed it
    DIFFERS = "differs"


@dataclass(frozen=True, kw_only=True)
class PlacedFile:
    """A file of the service, and what is at its place.

    Attributes:
        file: the file.
        state: what is there.
    """

    file: ServiceFile
    state: FileState

    @property
    def is_ours(self) -> bool:
        """Whether it was installed, and nobody has changed it since."""
        return self.state in (FileState.SAME, FileState.OUTDATED)


def below(root: Path, files: Iterable[ServiceFile]) -> tuple[ServiceFile, ...]:
    """The files as they lie in another root folder: that of a package, or of an
    image.
    """
    return tuple(
        replace(file, path=root / file.path.relative_to("/")) for file in files
    )


def placed(files: Iterable[ServiceFile]) -> tuple[PlacedFile, ...]:
    """What is at the place of each file.

    Raises:
        InvalidRequest: what is there cannot be read.
    """
    return tuple(PlacedFile(file=file, state=_state_of(file)) for file in files)


def _state_of(file: ServiceFile) -> FileState:
    try:
        content = file.path.read_bytes()
    except FileNotFoundError:
        return FileState.MISSING
    except OSError as error:
        raise _failed(file.path, "read", error) from None
    if content == file.marked.encode():
        return FileState.SAME
    is_ours = is_unchanged(content.decode(errors="replace"))
    return FileState.OUTDATED if is_ours else FileState.DIFFERS


def check_may_install(files: Sequence[PlacedFile]) -> None:
    """Refuse to write over what somebody has changed.

    Raises:
        InvalidRequest: naming the files.
    """
    foreign = [
        str(each.file.path)
        for each in files
        if each.state is FileState.DIFFERS and not each.file.is_example
    ]
    if foreign:
        raise InvalidRequest(
            f"{', '.join(foreign)}: there already, with other content; compare with "
            "`jupyter aistack broker install --dry-run`, and take it away first",
            field="install",
        )


def install(files: Sequence[PlacedFile]) -> tuple[Path, ...]:
    """Write the files that are missing or of another version; which.

    Raises:
        InvalidRequest: one cannot be written; new ones before it are taken away again.
    """
    written: list[PlacedFile] = []
    try:
        for each in files:
            if each.state in (FileState.MISSING, FileState.OUTDATED):
                _write(each.file)
                written.append(each)
    except OSError as error:
        for before in written:
            if before.state is FileState.MISSING:
                before.file.path.unlink(missing_ok=True)
        raise _failed(each.file.path, "written", error) from None
    return tuple(each.file.path for each in written)


def _write(file: ServiceFile) -> None:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file.path, file.marked)
    file.path.chmod(FILE_MODE)


def uninstall(files: Sequence[PlacedFile]) -> tuple[Path, ...]:
    """Take away the files that are as they were installed; which.

    Raises:
        InvalidRequest: one cannot be taken away.
    """
    removed = []
    for each in files:
        if not each.is_ours:
            continue
        try:
            each.file.path.unlink()
        except OSError as error:
            raise _failed(each.file.path, "taken away", error) from None
        removed.append(each.file.path)
    return tuple(removed)


def _failed(path: Path, what: str, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        f"{path} cannot be {what}: {error.strerror}; this is for root",
        field="install",
    )
