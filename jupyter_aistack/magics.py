"""Registers the magics ``%gpu``, ``%%gpu`` and ``%cluster`` in IPython.

Loaded by ``--ext=jupyter_aistack.magics`` in our kernels, by ``%load_ext
jupyter_aistack.magics`` elsewhere.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .client import notices
from .client.runtime import attach
from .client.runtime.memory_caps import cap_memory
from .notebook.magics.extension import AIStackMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython; loading twice is loading once."""
    if _registered(shell) is not None:
        return
    # A kernel that was launched with a share has its caps in the environment alone.
    cap_memory(os.environ)
    AIStackMagics(shell).register()
    if attach.LAUNCH_LEASES:
        notices.watcher.ask = _own_leases
        notices.watcher.watch()


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython's ``%unload_ext``; leases stay."""
    magics = _registered(shell)
    if magics is not None:
        magics.unregister()


def _registered(shell: InteractiveShell) -> AIStackMagics | None:
    magics = shell.magics_manager.registry.get(AIStackMagics.__name__)
    return magics if isinstance(magics, AIStackMagics) else None


def _own_leases() -> list[dict[str, Any]]:
    """The live leases of this kernel; the client is imported when it is asked."""
    from .client.client import own_leases

    return own_leases()
