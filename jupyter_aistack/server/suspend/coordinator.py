"""The server's part in suspending: the mover's threads, and when they are set to
work.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_aistack.core.suspend.capability import BEING_TESTED, SuspendCapability
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.server.kernels import KernelRegistry
from jupyter_aistack.server.rpc.agent_mailbox import AgentMailbox

from .kernel_activity import KernelActivityWatcher

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker
    from jupyter_aistack.broker.suspend_support import SuspendSupport
    from jupyter_aistack.core.model.lease import Lease
    from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient

    from .worker import SuspendWorker

THREADS = 4
"""Leases that may be moved at once; on one GPU the plan moves one after the other."""


class SuspendCoordinator:
    """Moves the device state of this server's kernels as the ledger's plans say. Use it
    from the event loop.

    Args:
        workbench: has the broker, and tells of changes.
        kernels: tells which kernels are this server's.
        agents: speak for them.
        watching: sees them from outside.
        results: gives the file in which self-tests are remembered.
        helper: who speaks to the driver; by default a process of its own, started at
            first need.
    """

    def __init__(
        self,
        workbench: ServerContext,
        kernels: KernelRegistry,
        agents: AgentMailbox,
        watching: KernelActivityWatcher,
        *,
        results: Callable[[], Path],
        helper: CheckpointClient | None = None,
    ) -> None:
        self._workbench = workbench
        self._kernels = kernels
        self._agents = agents
        self._watching = watching
        self._results = results
        self._helper = helper
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="aistack-moves")
        self._looks = ThreadPoolExecutor(THREADS, thread_name_prefix="aistack-looks")
        self._mover: SuspendWorker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own: frozenset[str] = frozenset()
        self._looking: asyncio.Task[None] | None = None
        self._is_asked = self._is_closed = False
        self._support: SuspendSupport | None = None
        workbench.on_built(self._begin)
        workbench.on_change(self.look_soon)
        workbench.before_kill = self.before_kill
        kernels.on_state(watching.hear)

    # -- beginning ---------------------------------------------------------------------

    def _begin(self, broker: Broker) -> None:
        """There is a broker: make the mover, and find out what the host can do beside
        everything else.
        """
        from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient

        helper = self._helper = self._helper or CheckpointClient()
        self._mover = self._build(broker, helper)
        self._support = broker.suspend_support
        self._support.update(BEING_TESTED)
        threading.Thread(
            target=self._find_out,
            args=(broker, helper),
            name="aistack-self-test",
            daemon=True,
        ).start()

    def _build(self, broker: Broker, helper: CheckpointClient) -> SuspendWorker:
        from jupyter_aistack.core.model.policy import SuspendPolicy

        from .driver_checkpoint import DriverCheckpoint
        from .executor import SuspendExecutor
        from .memory_probe import MemoryProbe
        from .worker import SuspendWorker

        policy = broker.suspend or SuspendPolicy()
        moves = SuspendExecutor(
            gauge=MemoryProbe(broker),
            checkpoints=DriverCheckpoint(helper, lock_seconds=policy.lock_seconds),
            ask=self._agents.ask,
            capability=lambda: broker.suspend_support.capability,
            policy=policy,
            clock=broker.clock,
            host_capacity=broker.suspend_capacity_bytes,
            log=self._workbench.log,
        )
        return SuspendWorker(
            broker, moves, is_own=self._is_own, log=self._workbench.log
        )

    def _find_out(self, broker: Broker, helper: CheckpointClient) -> None:
        from jupyter_aistack.providers.nvidia.version import driver_version

        from .capability import find_out
        from .selftest import Results

        try:
            found = find_out(broker, helper, Results(self._results()), driver_version)
        except Exception as error:  # whatever a driver does, kernels must run
            why = (
                error.message
                if isinstance(error, AIStackError)
                else f"{type(error).__name__}: {error}"
            )
            found = SuspendCapability(why=f"it could not be tested: {why}")
        broker.suspend_support.update(found)
        if self._mover is not None:
            self._mover.forget()
        self._workbench.log.info(
            "suspending idle kernels: %s: %s",
            found.tier.value,
            found.why,
        )
        self._look_from_thread()

    def _is_own(self, lease: Lease) -> bool:
        from .orphans import is_orphan

        return lease.holder.id in self._own or is_orphan(lease)

    # -- working -----------------------------------------------------------------------

    def look_soon(self) -> None:
        """Something may have to be moved; calls that come while that is looked at are
        one.
        """
        self._is_asked = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look_while_asked())

    async def _look_while_asked(self) -> None:
        while self._is_asked:
            self._is_asked = False
            with contextlib.suppress(AIStackError):  # the upkeep says so
                await self.look()

    async def look(self) -> None:
        """Set to work on what is to be moved now."""
        self._loop = asyncio.get_running_loop()
        mover = self._mover
        if mover is None or self._support is None or self._is_closed:
            return
        if self._support.capability.is_being_tested:
            return
        self._own = self._kernels.running()
        self._agents.forget(self._own)
        leases = await self._workbench.run(mover.own)
        if leases:
            self._kernels.observe()
        self._watching.see({lease.holder.id: lease for lease in leases})
        for lease in leases:
            if not self._is_closed and mover.claim(lease):
                # Looking waits for kernels that run a cell; nobody who waits for a move
                # should wait for that as well.
                pool = self._pool if mover.is_moving(lease) else self._looks
                pool.submit(self._work, mover, lease).add_done_callback(
                    partial(_give_up, mover, lease)
                )

    def _work(self, mover: SuspendWorker, lease: Lease) -> None:
        mover.work(lease)
        self._look_from_thread()

    def _look_from_thread(self) -> None:
        """What was moved may make room for others, and whoever watches wants to see
        it.
        """
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has been closed
                loop.call_soon_threadsafe(self._workbench.poke)

    async def before_kill(self, kernel_id: str, pid: int) -> None:
        """See `ServerContext.before_kill`. It has threads of its own: those of the
        mover may all be at work.
        """
        if self._mover is not None:
            await asyncio.to_thread(self._mover.suspend_before_kill, kernel_id, pid)

    def close(self) -> None:
        """Begin nothing more. What is under way is brought to its end: giving it up
        would lose a kernel's state.
        """
        self._is_closed = True
        if self._looking is not None:
            self._looking.cancel()
        self._watching.close()
        for pool in (self._pool, self._looks):
            pool.shutdown(wait=False, cancel_futures=True)
        helper = self._helper
        if helper is not None:
            threading.Thread(
                target=helper.close, name="aistack-helper-ends", daemon=True
            ).start()


def _give_up(mover: SuspendWorker, lease: Lease, work: Future[None]) -> None:
    """What was not begun before the server stopped is nobody's any more, and its
    kernel's end need not wait for it.
    """
    if work.cancelled():
        mover.give_up(lease)
