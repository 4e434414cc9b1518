"""``%gpu``, ``%%gpu`` and ``%cluster`` of one shell, and the hooks they need.

Registered by :mod:`jupyter_aistack.magics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from jupyter_aistack.notebook.session.cell_runner import AwaitedCells
from jupyter_aistack.notebook.session.cell_timing import CellTimer
from jupyter_aistack.notebook.session.kernelspec_slice import (
    KernelspecSlice,
    take_wanted_slice,
)
from jupyter_aistack.notebook.session.lease_sync import LeaseSync
from jupyter_aistack.notebook.suspend.resume_hooks import ResumeHooks

from . import arguments
from .cluster import ClusterCommands
from .commands import Connect, run_verb
from .completion import Completer
from .gpu import GPUCommands
from .gpu_cell import GPUCell
from .requests import KernelRequests

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from jupyter_aistack.client.client import Client
    from jupyter_aistack.client.display import Panel


def connect_to_own() -> Client:
    """This process's client; it is imported with the first call."""
    from jupyter_aistack.client.client import connect

    return connect()


@magics_class
class AIStackMagics(Magics):
    """The magics of one shell.

    Args:
        shell: the shell.
        connect: gives the client that they speak to.
    """

    shell: InteractiveShell

    def __init__(
        self, shell: InteractiveShell, connect: Connect = connect_to_own
    ) -> None:
        super().__init__(shell)
        self.resume_hooks = ResumeHooks(
            shell, lambda verb, **payload: connect().call(verb, **payload)
        )
        self.lease_sync = LeaseSync(connect, on_mine=self._observe)
        self.cell_timer = CellTimer(shell, connect)
        self.awaited_cells = AwaitedCells(shell)

        requests = KernelRequests(shell, connect)
        self.kernelspec_slice = KernelspecSlice(
            take_wanted_slice(), connect, self.lease_sync, requests.label
        )
        self._gpu = GPUCommands(connect, requests, self.lease_sync)
        self._gpu_cell = GPUCell(shell, requests, self.cell_timer)
        self._cluster = ClusterCommands(shell.user_ns)
        self._parsers = {
            "%gpu": arguments.gpu_parser(),
            "%%gpu": arguments.cell_parser(),
            "%cluster": arguments.cluster_parser(),
        }
        self._completer = Completer(self._parsers, connect)

    def _observe(self, mine: Mapping[str, Any]) -> None:
        from jupyter_aistack.client.lease_guard import own_lease

        self.resume_hooks.agent.observe(own_lease(mine))

    @line_magic
    def gpu(self, line: str) -> Panel | None:
        """Lease a slice of this machine for this kernel; %gpu --help tells how."""
        shown: Panel | None = run_verb(self._parsers["%gpu"], line, self._gpu.verbs())
        return shown

    @cell_magic("gpu")  # type: ignore[arg-type]
    def gpu_cell(self, line: str, cell: str) -> Any:
        """Run this cell on a slice of its own and release it afterwards; %%gpu --help
        tells how.
        """
        return self._gpu_cell.run(line, cell)

    @line_magic
    def cluster(self, line: str) -> Any:
        """A Dask cluster, each worker on a slice of its own; %cluster --help tells
        how.
        """
        return run_verb(self._parsers["%cluster"], line, self._cluster.verbs())

    def register(self) -> None:
        """Put the magics and their hooks into the shell."""
        shell = self.shell
        shell.register_magics(self)
        shell.events.register("pre_run_cell", self.kernelspec_slice.before_cell)
        shell.events.register("pre_run_cell", self.lease_sync.before_cell)
        # After the sync: a lease that came with this cell is attached by then.
        shell.events.register("pre_run_cell", self.cell_timer.before_cell)
        shell.events.register("post_run_cell", self.cell_timer.after_cell)
        self.resume_hooks.register()
        shell.input_transformers_post.append(self.awaited_cells)
        for name in self._parsers:
            shell.set_hook("complete_command", self._completer, str_key=name)

    def unregister(self) -> None:
        """Take them out again; leases stay."""
        shell = self.shell
        shell.magics_manager.registry.pop(type(self).__name__, None)
        shell.events.unregister("pre_run_cell", self.kernelspec_slice.before_cell)
        shell.events.unregister("pre_run_cell", self.lease_sync.before_cell)
        shell.events.unregister("pre_run_cell", self.cell_timer.before_cell)
        shell.events.unregister("post_run_cell", self.cell_timer.after_cell)
        self.cell_timer.close()
        self.resume_hooks.unregister()
        shell.input_transformers_post.remove(self.awaited_cells)
        for kind, name in (("line", "gpu"), ("cell", "gpu"), ("line", "cluster")):
            shell.magics_manager.magics[kind].pop(name, None)
