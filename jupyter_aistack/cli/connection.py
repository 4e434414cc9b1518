"""The client that the commands speak to; it is imported with the first use, so that
``--help`` and ``--version`` need none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client


def connect() -> Client:
    """This process's client. Raises `LedgerError`."""
    from jupyter_aistack.client.client import connect

    return connect()
