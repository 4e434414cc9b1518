"""What a server does when a lease of one of its kernels breaks its bound: interrupt the
cell, or end a process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.server.kernels import KernelRegistry

if TYPE_CHECKING:
    from jupyter_aistack.broker.memory_watchdog import MemoryBreach
    from jupyter_aistack.broker.remote.port import KernelBroker


class MemoryEnforcer:
    """Carries out what the watchdog asks for; never to a process that is not of the
    lease, nor to another's kernel.

    Args:
        context: whose threads it uses.
        kernels: the server's kernels.
    """

    def __init__(self, context: ServerContext, kernels: KernelRegistry) -> None:
        self._context = context
        self._kernels = kernels
        self._tasks: set[asyncio.Task[None]] = set()

    def act(self, broker: KernelBroker, breaches: Iterable[MemoryBreach]) -> None:
        """Begin with what is to be done now. Call it in the event loop."""
        for breach in breaches:
            task = asyncio.create_task(
                self._deal(broker, breach), name="aistack-warden"
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deal(self, broker: KernelBroker, breach: MemoryBreach) -> None:
        try:
            words = await self._carry_out(broker, breach)
            if words:
                self._context.log.warning(
                    "lease %s held more memory than it has: %s", breach.lease.id, words
                )
                await self._context.run(broker.breach_handled, breach.lease, words)
                self._context.notify_changed()
        except Exception:
            self._context.log.exception(
                "lease %s holds more memory than it has", breach.lease.id
            )

    async def _carry_out(self, broker: KernelBroker, breach: MemoryBreach) -> str:
        """What was done, for people; empty when it is another server's to do, or can
        only be done later.
        """
        from jupyter_aistack.core.enforcement.memory_limits import (
            MemoryAction,
            process_name,
        )

        holder = breach.lease.holder
        kernel_id = holder.parent or holder.id
        is_own = holder.belongs_to(broker.user, kernel_id)
        if kernel_id not in self._kernels.running() or not is_own:
            return ""
        if breach.action is MemoryAction.INTERRUPT:
            if await self._kernels.interrupt(kernel_id):
                return "its cell was interrupted"
            # The next cell will be.
            await self._context.run(broker.breach_postponed, breach.lease)
            return ""
        if breach.is_root:
            await self._kernels.restart(kernel_id)
            return (
                "no other process holds any, so its kernel was ended and started again"
            )
        await self._end(broker, breach)
        return f"{process_name(breach.process)} was ended"

    async def _end(self, broker: KernelBroker, breach: MemoryBreach) -> None:
        from jupyter_aistack.kernel.process_control import PidControl
        from jupyter_aistack.kernel.teardown import Teardown

        pid = breach.process.pid
        holder = breach.lease.holder
        await self._context.before_kill(holder.parent or holder.id, pid)
        device = broker.processes_on_device([breach.lease], pid)
        await Teardown(PidControl(device, pid, breach.started_at, self._quietly)).end()

    async def _quietly(self, function: Callable[..., Any], /, *args: Any) -> Any:
        try:
            return await self._context.run(function, *args)
        except Exception as error:
            self._context.log.warning(
                "jupyter_aistack: a process could not be ended as it should be: %s",
                error,
            )
            return None
