"""The server extension: builds the parts once, ties them together, and takes them down
again.

What it imports delays the server's start, so the broker and all below it are imported
at first use.
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jupyter_server.extension.application import ExtensionApp

from jupyter_aistack.server.maintenance.loop import MaintenanceLoop
from jupyter_aistack.server.realtime.event_bus import EventBus
from jupyter_aistack.server.realtime.sampler import Sampler, snapshot
from jupyter_aistack.server.realtime.websocket import UpdatesWebSocket
from jupyter_aistack.server.rest.handlers import ROUTES
from jupyter_aistack.server.rpc.agent_mailbox import AgentMailbox
from jupyter_aistack.server.rpc.unix_socket import SocketServer
from jupyter_aistack.server.suspend.coordinator import SuspendCoordinator
from jupyter_aistack.server.suspend.kernel_activity import KernelActivityWatcher

from .context import ServerContext
from .kernels import KernelRegistry

if TYPE_CHECKING:
    from jupyter_aistack.config import AIStack

__all__ = ["AIStackExtension", "ServerContext"]


class AIStackExtension(ExtensionApp):
    """Leases slices of this host's devices to the server's kernels."""

    name = "aistack"
    description = "Slices of GPUs for notebooks"

    workbench: ServerContext | None = None
    _tasks: tuple[asyncio.Task[None], ...] = ()
    _sockets: SocketServer | None = None

    def initialize_settings(self) -> None:
        """Leave the workbench where handlers and the provisioner find it; a second load
        finds the first one's.
        """
        serverapp = self.serverapp
        assert serverapp is not None
        before = serverapp.web_app.settings.get(self.name)
        if isinstance(before, ServerContext):
            self.settings[self.name] = before
            return
        self.workbench = workbench = ServerContext(
            lambda: self._stack.build_broker(),
            self.log,
            lambda broker: self._stack.build_service(broker),
        )
        self._kernels = KernelRegistry(serverapp)
        self._sampler = Sampler(lambda: snapshot(workbench), self.log)
        self._bus = EventBus(serverapp.event_logger)
        agents = AgentMailbox(workbench)
        self._moving = SuspendCoordinator(
            workbench,
            self._kernels,
            agents,
            KernelActivityWatcher(workbench, agents),
            results=lambda: self._stack.suspend_results,
        )
        workbench.on_built(self._bus.start_after_history)
        workbench.on_change(self._sampler.poke)
        self.settings[self.name] = workbench

    @cached_property
    def _stack(self) -> AIStack:
        from jupyter_aistack.config import AIStack

        return AIStack(parent=self)

    def initialize_handlers(self) -> None:
        """REST, metrics and the stream."""
        if self.workbench is None:
            return
        parts = {
            "workbench": self.workbench,
            "kernels": self._kernels,
            "sampler": self._sampler,
        }
        self.handlers.extend((route, handler, parts) for route, handler in ROUTES)
        self.handlers.append(
            (r"/aistack/api/v1/stream", UpdatesWebSocket, {"sampler": self._sampler})
        )

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Open the socket and start the maintenance, once the event loop runs."""
        if self.workbench is None or self._tasks:
            return
        self._sockets = SocketServer(
            self.workbench, self._kernels, serverapp.runtime_dir
        )
        try:
            self.workbench.socket_path = await self._sockets.start()
        except OSError as error:
            self.log.warning(
                "jupyter_aistack: kernels cannot reach the server, no socket can be made: %s",
                error,
            )
        parts = (self.workbench, self._kernels, self._bus, self._sampler)
        upkeep = MaintenanceLoop(
            *parts,
            cycle_seconds=lambda: self._stack.cycle_seconds,
            then=self._moving.look,
        )
        self._tasks = (asyncio.create_task(upkeep.run(), name="aistack-upkeep"),)

    async def stop_extension(self) -> None:
        """End tasks, socket and sampler. The broker stays until exit: kernels shut
        down, and release, after this.
        """
        tasks = self._tasks
        self._tasks = ()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sockets is not None:
            await self._sockets.close()
            self._sockets = None
        if self.workbench is not None:
            self.workbench.socket_path = ""
            self._moving.close()
            self._sampler.stop()
