"""Asking for this kernel's lease: the guard of one lease per kernel, and the waiting."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from jupyter_aistack.notebook.panels.wait_progress import Progress

from .commands import JSON, Connect

if TYPE_CHECKING:
    from jupyter_aistack.client.client import LeaseHandle

Shell = Any
"""IPython's ``InteractiveShell``, of which only parts are typed."""


class KernelRequests:
    """Requests of one kernel.

    Args:
        shell: its namespace may know the notebook's name.
        connect: gives the client.
    """

    def __init__(self, shell: Shell, connect: Connect) -> None:
        self._shell = shell
        self._connect = connect

    def check(self, spec: str) -> JSON | None:
        """The lease this kernel has already, if it is what is asked for; else None.

        Raises:
            InvalidRequest: `spec` cannot be understood.
            LeaseError: this kernel holds another lease, or waits for a lease.
        """
        from jupyter_aistack.client.lease_guard import check_kernel
        from jupyter_aistack.core.model.spec import parse_spec

        canonical = str(parse_spec(spec))
        return check_kernel(self._connect().mine(), canonical)

    def submit(self, arguments: Namespace, *, wait: bool) -> LeaseHandle:
        """Ask for what the arguments say, and show how the waiting goes."""
        from jupyter_aistack.client.durations import lease_seconds

        duration = arguments.duration
        if duration is not None:
            duration = lease_seconds(duration, field="for")
        client = self._connect()
        label = self.label() if client.transport == "embedded" else ""
        with Progress(arguments.spec) as progress:
            return client.request(
                arguments.spec,
                wait=wait,
                timeout=arguments.timeout,
                queue=arguments.queue,
                duration=duration,
                preemptible=arguments.preemptible,
                up_to=arguments.up_to,
                label=label,
                on_wait=progress.show_place,
                on_check=progress.show_check,
            )

    def label(self) -> str:
        """What to call this kernel where no Jupyter server knows it.

        VS Code puts the notebook's path in a variable.
        """
        session = os.environ.get("JPY_SESSION_NAME")
        return session or str(self._shell.user_ns.get("__vsc_ipynb_file__", ""))
