"""What keeps a server and its kernels from being culled while they look idle.

JupyterHub's idle culler goes by what a server says of its last activity, and Jupyter's
own culler by that of each kernel. Neither knows that a kernel waits for a slice which
its user has asked for, nor that a cell which prints nothing works on a device. Those
count as activity here; a slice that is only held does not, and goes with its server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.server.kernels import KernelRegistry

JSON = dict[str, Any]
LOOK_SECONDS = 30.0
"""Between two looks, unless the hub is told more often: cullers count in minutes."""
HUB_INTERVAL = "JUPYTERHUB_ACTIVITY_INTERVAL"
"""Seconds between two reports of a server to its hub, as JupyterHub reads it."""
SOURCE = "jupyter_aistack"
"""Under which name it counts among a server's activities."""


class ServerActivity:
    """Says that a server and its kernels are needed. Use it from the event loop.

    Args:
        context: answers what waits and what is held.
        kernels: the kernels of this server.
        serverapp: the Jupyter server.
        clock: seconds that only go on.
    """

    def __init__(
        self,
        context: ServerContext,
        kernels: KernelRegistry,
        serverapp: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._kernels = kernels
        self._serverapp = serverapp
        self._clock = clock
        self._due = clock()

    async def note(self) -> None:
        """Look, if it is time again, and note what is needed."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + look_seconds(os.environ)
        running = self._kernels.running()
        if not running:
            return
        needed = needed_kernels(
            await self._asked("queue"),
            await self._asked("leases"),
            busy=self._kernels.busy(),
        )
        self._touch(needed & running)

    async def _asked(self, verb: str) -> list[JSON]:
        caller = await self._kernels.caller_in_browser()
        answer: list[JSON] = (await self._context.call(verb, {}, caller))[verb]
        return answer

    def _touch(self, kernel_ids: Iterable[str]) -> None:
        now = datetime.now(UTC)
        for kernel_id in kernel_ids:
            self._serverapp.web_app.settings["last_activity_times"][SOURCE] = now
            self._serverapp.kernel_manager.get_kernel(kernel_id).last_activity = now


def look_seconds(environment: Mapping[str, str]) -> float:
    """The time between two looks of a server with that environment."""
    try:
        return min(float(environment.get(HUB_INTERVAL, LOOK_SECONDS)), LOOK_SECONDS)
    except ValueError:
        return LOOK_SECONDS


def needed_kernels(
    requests: Iterable[JSON], leases: Iterable[JSON], *, busy: frozenset[str]
) -> frozenset[str]:
    """Kernels that wait for a slice, or that hold one and run a cell.

    Args:
        requests, leases: what waits and what is held, as on the wire.
        busy: kernels in which a cell runs.
    """
    waiting = {_kernel_of(request) for request in requests}
    holding = {_kernel_of(lease) for lease in leases}
    return frozenset(waiting | (holding & busy))


def _kernel_of(item: JSON) -> str:
    """The kernel that a holder is, or belongs to."""
    holder = item["holder"]
    return str(holder["parent"] or holder["id"])
