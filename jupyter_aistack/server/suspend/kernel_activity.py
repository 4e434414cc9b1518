"""Notices from outside that kernels are at work, whatever their language and whatever
runs their cells: the net below the hooks inside them.
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
    begin_work,
    end_work,
    inspect,
)
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.server.rpc.agent_mailbox import AgentMailbox

if TYPE_CHECKING:
    from jupyter_aistack.core.model.device_state import DeviceState
    from jupyter_aistack.core.model.lease import Lease

SETTLE_SECONDS = 2.0
"""After which a kernel's own word that its cell is over has come, or will not."""


class KernelActivityWatcher:
    """Notes that a kernel needs its device when something runs in it, and that it is
    over. Use it from the event loop.

    Args:
        context: has the broker.
        agents: know which kernels speak for themselves.
    """

    def __init__(self, context: ServerContext, agents: AgentMailbox) -> None:
        self._context = context
        self._agents = agents
        self._works: dict[str, KernelWork] = {}
        self._leases: Mapping[str, Lease] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def observe_kernels(self, leases: Mapping[str, Lease]) -> None:
        """Watch these kernels from now on: the leases that may be suspended, by kernel
        id.
        """
        self._leases = leases
        self._works = {
            kernel_id: work
            for kernel_id, work in self._works.items()
            if kernel_id in leases
        }

    def on_state(self, kernel_id: str, is_busy: bool) -> None:
        """A kernel has begun to run something, or has ended it."""
        lease = self._leases.get(kernel_id)
        if lease is None:
            return
        work = self._works.get(kernel_id, KernelWork())
        if is_busy:
            self._works[kernel_id] = begin_work(work, self._now(), _cpu_seconds(lease))
            if work.busy_at is None:
                self._start(self._poll_while_busy(kernel_id))
            return

        self._works[kernel_id], verdict = end_work(work)
        if verdict is ActivityVerdict.ENDS:
            self._start(self._note(lease, verdict))
        else:
            self._start(self._end_if_still_idle(kernel_id, lease))

    async def _end_if_still_idle(self, kernel_id: str, lease: Lease) -> None:
        """A kernel that has been idle for a while uses nothing, whatever it could not
        say itself.
        """
        await asyncio.sleep(SETTLE_SECONDS)
        work = self._works.get(kernel_id)
        if work is None or work.busy_at is not None:
            return
        state = await self._device_state(lease)
        # Compared by identity: any event of the kernel since has put another in.
        is_same = work is self._works.get(kernel_id)
        if state is not None and state.is_busy and is_same:
            await self._note(lease, ActivityVerdict.ENDS)

    async def _poll_while_busy(self, kernel_id: str) -> None:
        while True:
            await asyncio.sleep(GRACE_SECONDS)
            lease = self._leases.get(kernel_id)
            work = self._works.get(kernel_id)
            if lease is None or work is None or work.busy_at is None:
                return
            await self._poll(kernel_id, lease)

    async def _poll(self, kernel_id: str, lease: Lease) -> None:
        state = await self._device_state(lease)
        # Read after the wait: the kernel may have fallen idle meanwhile.
        work = self._works.get(kernel_id)
        if state is None or work is None or work.busy_at is None:
            return
        self._works[kernel_id], verdict = inspect(
            work,
            state.phase,
            has_agent=self._agents.is_present(kernel_id),
            cpu_seconds=_cpu_seconds(lease),
            now=self._now(),
            is_wanted=state.wanted_at is not None,
        )
        if verdict is ActivityVerdict.BEGINS:
            await self._note(lease, verdict)

    async def _device_state(self, lease: Lease) -> DeviceState | None:
        broker = self._context.broker
        return (await self._context.run(broker.lease, lease.id)).residence

    async def _note(self, lease: Lease, verdict: ActivityVerdict) -> None:
        broker = self._context.broker
        begins = verdict is ActivityVerdict.BEGINS
        note = broker.begin_cell if begins else broker.end_cell
        with contextlib.suppress(AIStackError):  # the lease has ended
            await self._context.run(note, lease.id)
        self._context.notify_changed()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._log_failure)

    def _log_failure(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, AIStackError):
            self._context.log.error("a kernel could not be watched", exc_info=error)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def close(self) -> None:
        """Watch no more."""
        for task in self._tasks:
            task.cancel()


def _cpu_seconds(lease: Lease) -> float | None:
    """CPU time of the kernel's own process; those below it may work on without it."""
    from jupyter_aistack.broker.liveness import root_pid
    from jupyter_aistack.system.processes import cpu_seconds

    root = root_pid(lease.holder)
    return None if root is None else cpu_seconds(root)
