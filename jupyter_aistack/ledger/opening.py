"""Which ledger a URL names, and whose settings count for all who share it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from jupyter_aistack.system.sqlite_files import (
    is_shared_folder,
    sqlite_path,
    sqlite_url,
)

from .base import Ledger

ROOT = 0
_SHARING = stat.S_IWGRP | stat.S_IWOTH


def open_ledger(url: str) -> Ledger:
    """The ledger behind a URL that somebody has chosen.

    Raises:
        LedgerError: it cannot be opened, or another version wrote it.
    """
    if url == "memory:":
        from .memory import MemoryLedger

        return MemoryLedger()
    from .sql.ledger import SQLLedger

    return SQLLedger(url)


def open_own_ledger() -> Ledger:
    """The ledger of this user alone, where nobody has chosen another: in Jupyter's data
    directory, or in memory where that cannot be.

    Raises:
        LedgerError: it cannot be opened, or another version wrote it.
    """
    from .stand_in import stand_in

    url = default_ledger_url()
    path = sqlite_path(url)
    in_memory = None if path is None else stand_in(path, url)
    if in_memory is not None:
        return in_memory
    from .sql.ledger import SQLLedger

    return SQLLedger(url, is_default=True)


def default_ledger_url() -> str:
    """An SQLite file in Jupyter's data directory, so that all of a user's servers and
    scripts share it.
    """
    from jupyter_core.paths import jupyter_data_dir

    return sqlite_url(Path(jupyter_data_dir()) / "aistack" / "ledger.sqlite")


def results_file(ledger_url: str, data_dir: Path) -> Path:
    """Where results of the self-test of suspending are kept: beside an SQLite ledger,
    else in Jupyter's data directory.
    """
    path = sqlite_path(ledger_url)
    folder = data_dir / "aistack" if path is None else path.parent
    return folder / "suspend-tested.json"


def strays_file(folder: Path) -> Path:
    """Where a user's broker remembers who uses GPUs without a lease, in the folder of the
    ledger, which others may share.
    """
    return folder / f"strays-{os.getuid()}.json"


def rule_makers(url: str) -> frozenset[int] | None:
    """The users whose settings count for all who share a ledger; None where this user
    shares it with nobody.

    Of a file they are its owner, who could change what is written there anyhow, and
    root; of a database root alone, as far as can be told from here.
    """
    if url == "memory:":
        return None
    path = sqlite_path(url)
    if path is None:
        return frozenset({ROOT})
    try:
        return _makers_of(path)
    except OSError:
        return None  # it cannot be opened either, and nobody's rules matter


def _makers_of(path: Path) -> frozenset[int] | None:
    if not path.exists():
        # It will be this user's own, and the group's where the folder is.
        is_to_be_shared = path.parent.is_dir() and is_shared_folder(path.parent)
        owner = path.parent.stat().st_uid if is_to_be_shared else os.getuid()
        return frozenset({ROOT, owner}) if is_to_be_shared else None
    status = path.stat()
    is_own = status.st_uid == os.getuid() and not status.st_mode & _SHARING
    return None if is_own else frozenset({ROOT, status.st_uid})
