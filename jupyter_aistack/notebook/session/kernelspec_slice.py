"""The slice of a kernelspec whose kernel was started by its command alone.

VS Code, and whatever else starts a kernelspec's command itself, passes the provisioner
over, which would have asked before the kernel started. Then the kernel asks, before its
first cell: nothing has chosen devices by then, and there is a place to say what came.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.runtimes import blindly_hidden_environment

from .lease_sync import LeaseSync

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client

VARIABLE = "AISTACK_SLICE"
UP_TO_VARIABLE = "AISTACK_UP_TO"
"""In the ``env`` of a kernelspec: what its provisioner's ``slice`` and ``up_to`` say."""


@dataclass(frozen=True, kw_only=True)
class WantedSlice:
    """What a kernel is to ask for itself.

    Attributes:
        spec: the slice; empty for nothing.
        up_to: its ceiling; empty for none.
    """

    spec: str = ""
    up_to: str = ""

    @property
    def command(self) -> str:
        """The magic that asks for it."""
        ceiling = f" --up-to {self.up_to}" if self.up_to else ""
        return f"%gpu request {self.spec}{ceiling}"


def take_wanted_slice() -> WantedSlice:
    """What this kernel is to ask for itself.

    It is taken out of the environment, which processes of the kernel inherit.
    """
    spec = os.environ.pop(VARIABLE, "")
    up_to = os.environ.pop(UP_TO_VARIABLE, "")
    if os.environ.get("AISTACK_KERNEL"):
        return WantedSlice()
    return WantedSlice(spec=spec, up_to=up_to)


class KernelspecSlice:
    """Asks for a slice before the first cell.

    Args:
        wanted: what to ask for.
        connect: gives the client.
        sync: attaches what comes later.
        label: what to call this kernel.
        say: shows a line.
    """

    def __init__(
        self,
        wanted: WantedSlice,
        connect: Callable[[], Client],
        sync: LeaseSync,
        label: Callable[[], str],
        say: Callable[[str], None] = print,
    ) -> None:
        self._wanted = wanted
        self._connect = connect
        self._sync = sync
        self._label = label
        self._say = say

    def before_cell(self, *_: Any) -> None:
        """IPython's ``pre_run_cell``; never raises."""
        wanted = self._wanted
        self._wanted = WantedSlice()
        if not wanted.spec:
            return
        try:
            self._ask(wanted)
        except AIStackError as error:
            _hide_devices()
            self._say(
                f"This kernel was to have {wanted.spec} and has none: {error.message}. "
                f"Ask again with {wanted.command}"
            )

    def _ask(self, wanted: WantedSlice) -> None:
        from jupyter_aistack.notebook.panels.views import arrived_line, waiting_line

        handle = self._connect().request(
            wanted.spec, up_to=wanted.up_to, wait=False, label=self._label()
        )
        if handle.lease is not None:
            self._say(arrived_line(handle.lease))
            return
        _hide_devices()
        self._sync.pending = handle
        self._say(waiting_line(handle.request))


def _hide_devices() -> None:
    """A kernel that was to have a slice must not see all of the GPUs instead."""
    os.environ.update(blindly_hidden_environment())
