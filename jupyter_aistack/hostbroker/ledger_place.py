"""Where the host broker writes leases down, unless it is told."""

from __future__ import annotations

import os
from pathlib import Path

from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.system.sqlite_files import sqlite_url
from jupyter_aistack.system.users import is_root

STATE_FOLDER = Path("/var/lib/aistack")
FILE = "ledger.sqlite"
FOLDER_MODE = 0o700
"""No user of the host opens the broker's ledger."""


def broker_ledger_url(chosen: str, configured: str) -> str:
    """The ledger of a host broker: the command line goes first, then the environment,
    then the administrator's file, then the folder that systemd has made for it.

    Empty for a broker that is not root and was told nothing: the user's own ledger.

    Raises:
        LedgerUnavailable: the folder cannot be made.
    """
    told = chosen or os.environ.get("AISTACK_LEDGER") or configured
    if told:
        return told
    state_folder = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if state_folder:
        return sqlite_url(Path(state_folder) / FILE)
    if not is_root():
        return ""
    try:
        STATE_FOLDER.mkdir(mode=FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise LedgerUnavailable(
            f"ledger_url: {STATE_FOLDER} cannot be made: {error.strerror}; name another "
            "place with --ledger",
            field="ledger_url",
        ) from None
    return sqlite_url(STATE_FOLDER / FILE)
