"""Kernels seen at work from outside, whatever their language and whoever runs their
cells: the net below the hooks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from jupyter_aistack.core.suspend.activity import (
    GRACE_SECONDS,
    ActivityVerdict,
    KernelWork,
    look,
    turns_busy,
    turns_idle,
)
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.server.rpc.agent_mailbox import AgentMailbox

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker
    from jupyter_aistack.core.model.lease import Lease

SETTLE_SECONDS = 2.0
"""After which a kernel's own word that its cell is over has come, or will not."""


class KernelActivityWatcher:
    """Notes that a kernel needs its device when something runs in it, and that it is
    over. Use it from the event loop.

    Args:
        workbench: has the broker.
        agents: tells which kernels speak for themselves.
    """

    def __init__(self, workbench: ServerContext, agents: AgentMailbox) -> None:
        self._workbench = workbench
        self._agents = agents
        self._works: dict[str, KernelWork] = {}
        self._leases: Mapping[str, Lease] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def see(self, leases: Mapping[str, Lease]) -> None:
        """The leases that may be parked, by kernel."""
        self._leases = leases
        self._works = {
            kernel_id: work
            for kernel_id, work in self._works.items()
            if kernel_id in leases
        }

    def hear(self, kernel_id: str, is_busy: bool) -> None:
        """A kernel has begun to run something, or has ended it."""
        lease = self._leases.get(kernel_id)
        if lease is None:
            return
        work = self._works.get(kernel_id, KernelWork())
        if is_busy:
            self._works[kernel_id] = turns_busy(work, self._now(), _cpu_seconds(lease))
            if work.busy_at is None:
                self._start(self._follow(kernel_id))
            return
        self._works[kernel_id], said = turns_idle(work)
        if said is ActivityVerdict.ENDS:
            self._start(self._note(lease, said))
        else:
            self._start(self._settle(kernel_id, lease))

    async def _settle(self, kernel_id: str, lease: Lease) -> None:
        """A kernel that has been idle for a while uses nothing, whatever it could not
        say itself.
        """
        await asyncio.sleep(SETTLE_SECONDS)
        work = self._works.get(kernel_id)
        if work is None or work.busy_at is not None:
            return
        broker = await self._workbench.ready()
        residence = (await self._workbench.run(broker.lease, lease.id)).residence
        if (
            residence is not None
            and residence.is_busy
            and work is self._works.get(kernel_id)
        ):
            await self._note(lease, ActivityVerdict.ENDS)

    async def _follow(self, kernel_id: str) -> None:
        """Look every now and then while it runs."""
        while True:
            await asyncio.sleep(GRACE_SECONDS)
            lease = self._leases.get(kernel_id)
            work = self._works.get(kernel_id)
            if lease is None or work is None or work.busy_at is None:
                return
            await self._look(kernel_id, lease)

    async def _look(self, kernel_id: str, lease: Lease) -> None:
        broker = await self._workbench.ready()
        residence = (await self._workbench.run(broker.lease, lease.id)).residence
        work = self._works.get(kernel_id)  # it may have fallen idle meanwhile
        if residence is None or work is None or work.busy_at is None:
            return
        has_agent = self._agents.is_present(kernel_id)
        cpu = _cpu_seconds(lease)
        self._works[kernel_id], said = look(
            work,
            residence.phase,
            has_agent=has_agent,
            cpu_seconds=cpu,
            now=self._now(),
            is_wanted=residence.wanted_at is not None,
        )
        if said is ActivityVerdict.BEGINS:
            await self._note(lease, said)

    async def _note(self, lease: Lease, said: ActivityVerdict) -> None:
        broker = await self._workbench.ready()
        with contextlib.suppress(AIStackError):  # the lease has ended
            await self._workbench.run(_note, broker, lease.id, said)
        self._workbench.poke()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, AIStackError):
            self._workbench.log.error("a kernel could not be watched", exc_info=error)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def close(self) -> None:
        """Watch no more."""
        for task in self._tasks:
            task.cancel()


def _note(broker: Broker, lease_id: str, said: ActivityVerdict) -> None:
    if said is ActivityVerdict.BEGINS:
        broker.begin_cell(lease_id)
    else:
        broker.end_cell(lease_id)


def _cpu_seconds(lease: Lease) -> float | None:
    """CPU time of the kernel's own process; those below it may work on without it."""
    from jupyter_aistack.system.processes import cpu_seconds

    root = lease.holder.root_pid or lease.holder.pid
    return None if root is None else cpu_seconds(root)
