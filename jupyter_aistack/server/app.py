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
from jupyter_aistack.server.maintenance.server_activity import ServerActivity
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
    from jupyter_aistack.system.broker_socket import BrokerSocket

__all__ = ["AIStackExtension", "ServerContext"]


class AIStackExtension(ExtensionApp):
    """Leases slices of this host's devices to the server's kernels."""

    name = "aistack"
    description = "Slices of GPUs for notebooks"

    context: ServerContext | None = None
    _tasks: tuple[asyncio.Task[None], ...] = ()
    _sockets: SocketServer | None = None

    def initialize_settings(self) -> None:
        """Leave the context where handlers and the provisioner find it; a second load
        finds the context of the first.
        """
        serverapp = self.serverapp
        assert serverapp is not None
        existing = serverapp.web_app.settings.get(self.name)
        if isinstance(existing, ServerContext):
            self.settings[self.name] = existing
            return
        self.context = context = ServerContext(
            lambda: self._stack.build_broker(),
            self.log,
            lambda broker: self._stack.build_service(broker),
            lambda: self._find_host_broker(),
        )
        self._kernels = KernelRegistry(serverapp)
        self._sampler = Sampler(lambda: snapshot(context), self.log)
        self._bus = EventBus(serverapp.event_logger)
        agents = AgentMailbox(context)
        self._suspend = SuspendCoordinator(
            context,
            self._kernels,
            agents,
            KernelActivityWatcher(context, agents),
            results=lambda: self._stack.suspend_results,
        )
        context.on_built(self._bus.start_after_history)
        context.on_change(self._sampler.poke)
        self.settings[self.name] = context

    @cached_property
    def _stack(self) -> AIStack:
        from jupyter_aistack.config import AIStack

        return AIStack(parent=self)

    def _find_host_broker(self) -> BrokerSocket | None:
        from jupyter_aistack.config import find_host_broker

        return find_host_broker(self._stack)

    def initialize_handlers(self) -> None:
        """REST, metrics and the stream."""
        if self.context is None:
            return
        parts = {
            "context": self.context,
            "kernels": self._kernels,
            "sampler": self._sampler,
        }
        self.handlers.extend((route, handler, parts) for route, handler in ROUTES)
        self.handlers.append(
            (r"/aistack/api/v1/stream", UpdatesWebSocket, {"sampler": self._sampler})
        )

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Open the socket and start the maintenance, once the event loop runs."""
        if self.context is None or self._tasks:
            return
        self._sockets = SocketServer(self.context, self._kernels, serverapp.runtime_dir)
        try:
            self.context.socket_path = await self._sockets.start()
        except OSError as error:
            self.log.warning(
                "jupyter_aistack: kernels cannot reach the server, no socket can be made: %s",
                error,
            )
        maintenance = MaintenanceLoop(
            self.context,
            self._kernels,
            self._bus,
            self._sampler,
            cycle_seconds=lambda: self._stack.cycle_seconds,
            then=(
                self._suspend.poll,
                ServerActivity(self.context, self._kernels, serverapp).note,
            ),
        )
        task = asyncio.create_task(maintenance.run(), name="aistack-maintenance")
        self._tasks = (task,)

    async def stop_extension(self) -> None:
        """End tasks, socket and sampler."""
        # The broker stays until exit: Jupyter shuts kernels down after its extensions,
        # and they release their leases through it.
        tasks = self._tasks
        self._tasks = ()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sockets is not None:
            await self._sockets.close()
            self._sockets = None
        if self.context is not None:
            self.context.socket_path = ""
            self._suspend.close()
            self._sampler.stop()
