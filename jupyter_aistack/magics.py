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
from .notebook.magics.gpu import AIStackMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython; loading twice is loading once."""
    if isinstance(shell.magics_manager.registry.get("AIStackMagics"), AIStackMagics):
        return
    cap_memory(
        os.environ
    )  # a kernel that was launched with a share has its caps in the environment alone
    magics = AIStackMagics(shell)
    shell.register_magics(magics)
    if attach.BORN_WITH:
        notices.watcher.ask = _own_leases
        notices.watcher.watch()
    shell.events.register("pre_run_cell", magics.arrivals.before_cell)
    shell.events.register(
        "pre_run_cell", magics.cells.before_cell
    )  # after a lease that came has been attached
    shell.events.register("post_run_cell", magics.cells.after_cell)
    magics.stay.register()
    shell.input_transformers_post.append(magics.awaited)
    for name in ("%gpu", "%%gpu", "%cluster"):
        shell.set_hook("complete_command", magics.complete, str_key=name)


def _own_leases() -> list[dict[str, Any]]:
    """The live leases of this kernel; the client is imported when it is asked."""
    from .client.client import own_leases

    return own_leases()


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython's ``%unload_ext``; leases stay."""
    magics = shell.magics_manager.registry.pop("AIStackMagics", None)
    if magics is not None:
        shell.events.unregister("pre_run_cell", magics.arrivals.before_cell)
        shell.events.unregister("pre_run_cell", magics.cells.before_cell)
        shell.events.unregister("post_run_cell", magics.cells.after_cell)
        magics.stay.unregister()
        shell.input_transformers_post.remove(magics.awaited)
        for kind, name in (("line", "gpu"), ("cell", "gpu"), ("line", "cluster")):
            shell.magics_manager.magics[kind].pop(name, None)
