"""The body of ``%%gpu``: a cell that runs on a slice of its own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.notebook.session.cell_runner import (
    compile_cell,
    ends_in_semicolon,
    needs_await,
    run,
    run_awaiting,
)

from .arguments import cell_parser
from .commands import one_line_errors, parse

if TYPE_CHECKING:
    from jupyter_aistack.client.client import LeaseHandle
    from jupyter_aistack.notebook.session.cell_timing import CellTimer

    from .requests import KernelRequests

Shell = Any
"""IPython's ``InteractiveShell``, of which only parts are typed."""


class GPUCell:
    """Runs a cell on a lease that is asked for before it and released after it.

    Args:
        shell: compiles and holds the namespace.
        requests: asks for the lease.
        cell_timer: tells when the cell ran, while its lease is still there.
    """

    def __init__(
        self, shell: Shell, requests: KernelRequests, cell_timer: CellTimer
    ) -> None:
        self._shell = shell
        self._requests = requests
        self._cell_timer = cell_timer
        self._parser = cell_parser()

    def run(self, line: str, cell: str) -> Any:
        """The value of the cell; for a cell that awaits, a coroutine of it, which
        `AwaitedCells` lets IPython await.
        """
        with one_line_errors():
            arguments = parse(self._parser, line)
        if arguments is None:
            return None

        # Compiled first: a cell with a mistake in it must not wait for a slice.
        codes = compile_cell(self._shell, cell)
        is_shown = not ends_in_semicolon(cell)
        if needs_await(codes):
            return run_awaiting(
                codes, self._shell, lambda: self._lease(arguments), is_shown=is_shown
            )
        with self._lease(arguments):
            value = run(codes, self._shell)
        return value if is_shown else None

    @contextmanager
    def _lease(self, arguments: Namespace) -> Iterator[None]:
        """The cell's own lease, which is gone before the cell has ended."""
        with self._request(arguments):
            try:
                yield
            finally:
                # Before the release: what is used after it is charged to no cell.
                self._cell_timer.tell_now(is_over=True)

    def _request(self, arguments: Namespace) -> LeaseHandle:
        with one_line_errors():
            if self._requests.check(arguments) is not None:
                raise LeaseError(
                    f"this kernel already holds {arguments.spec}: run the cell without %%gpu, or %gpu release first"
                )
            return self._requests.submit(arguments, wait=True)
