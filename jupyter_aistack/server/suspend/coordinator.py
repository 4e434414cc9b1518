"""Coordinates suspension in this server: which of its kernels' leases are worked on,
and in which threads.
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
from jupyter_aistack.system.users import current_user

from .kernel_activity import KernelActivityWatcher

if TYPE_CHECKING:
    from jupyter_aistack.broker.broker import Broker
    from jupyter_aistack.broker.suspend_support import SuspendSupport
    from jupyter_aistack.core.model.lease import Lease
    from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient

    from .worker import SuspendWorker

THREADS = 4
"""Leases that may be moved at once; on one GPU the plan moves one lease after
the other."""


class SuspendCoordinator:
    """Moves the device state of this server's kernels as the ledger's plans say. Use it
    from the event loop.

    Args:
        context: has the broker, and notifies of changes.
        kernels: knows which kernels are this server's.
        agents: speak for the kernels.
        activity: watches the kernels from outside.
        results: gives the file in which self-tests are remembered.
        helper: speaks to the driver; by default a process of its own, started at first
            need.
    """

    def __init__(
        self,
        context: ServerContext,
        kernels: KernelRegistry,
        agents: AgentMailbox,
        activity: KernelActivityWatcher,
        *,
        results: Callable[[], Path],
        helper: CheckpointClient | None = None,
    ) -> None:
        self._context = context
        self._kernels = kernels
        self._agents = agents
        self._activity = activity
        self._results = results
        self._helper = helper
        # Two pools: a check waits for kernels that run a cell, and a transfer that
        # someone waits for must not stand behind that.
        self._transfers = ThreadPoolExecutor(
            THREADS, thread_name_prefix="aistack-moves"
        )
        self._checks = ThreadPoolExecutor(THREADS, thread_name_prefix="aistack-looks")
        self._support: SuspendSupport | None = None
        self._worker: SuspendWorker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own_kernels: frozenset[str] = frozenset()
        self._polling: asyncio.Task[None] | None = None
        self._is_poll_due = False
        self._is_closed = False
        context.on_embedded(self._begin)
        context.on_change(self.poll_soon)
        context.before_kill = self.before_kill
        kernels.on_state(activity.on_state)

    # -- beginning ---------------------------------------------------------------------

    def _begin(self, broker: Broker) -> None:
        """There is a broker: build the worker, and find out beside everything else what
        the host can do.
        """
        from jupyter_aistack.providers.nvidia.checkpoint.client import CheckpointClient

        helper = self._helper = self._helper or CheckpointClient()
        self._worker = self._build_worker(broker, helper)
        self._support = broker.suspend_support
        self._support.update(BEING_TESTED)
        threading.Thread(
            target=self._find_out,
            args=(broker, helper),
            name="aistack-self-test",
            daemon=True,
        ).start()

    def _build_worker(self, broker: Broker, helper: CheckpointClient) -> SuspendWorker:
        from jupyter_aistack.core.model.policy import SuspendPolicy

        from .driver_checkpoint import DriverCheckpoint
        from .executor import SuspendExecutor
        from .memory_probe import MemoryProbe
        from .worker import SuspendWorker

        policy = broker.suspend or SuspendPolicy()
        log = self._context.log
        executor = SuspendExecutor(
            probe=MemoryProbe(broker),
            checkpoints=DriverCheckpoint(helper, lock_seconds=policy.lock_seconds),
            call_agent=self._agents.call,
            capability=lambda: broker.suspend_support.capability,
            policy=policy,
            clock=broker.clock,
            host_capacity=broker.suspend_capacity_bytes,
            log=log,
        )
        return SuspendWorker(broker, executor, is_own=self._is_own, log=log)

    def _find_out(self, broker: Broker, helper: CheckpointClient) -> None:
        """Test the host, and tell the broker. Runs in a thread of its own."""
        from .capability import find_out
        from .selftest import Results

        try:
            results = Results(self._results())
            capability = find_out(
                broker, helper, results, broker.devices.driver_version
            )
        except Exception as error:  # whatever a driver does, kernels must run
            why = (
                error.message
                if isinstance(error, AIStackError)
                else f"{type(error).__name__}: {error}"
            )
            capability = SuspendCapability(why=f"it could not be tested: {why}")
        broker.suspend_support.update(capability)
        if self._worker is not None:
            self._worker.forget()
        self._context.log.info(
            "suspending idle kernels: %s: %s", capability.tier.value, capability.why
        )
        self._notify_from_thread()

    def _is_own(self, lease: Lease) -> bool:
        from .orphans import is_orphan

        holder = lease.holder
        is_own = holder.id in self._own_kernels and holder.is_kernel(
            current_user(), holder.id
        )
        return is_own or is_orphan(lease)

    # -- working -----------------------------------------------------------------------

    def poll_soon(self) -> None:
        """Something may have to be moved. Calls that come while a poll runs are served
        by one more poll.
        """
        self._is_poll_due = True
        if self._polling is None or self._polling.done():
            self._polling = asyncio.ensure_future(self._poll_while_due())

    async def _poll_while_due(self) -> None:
        while self._is_poll_due:
            self._is_poll_due = False
            with contextlib.suppress(AIStackError):  # the maintenance loop logs it
                await self.poll()

    async def poll(self) -> None:
        """Set threads to work on what is to be done now."""
        self._loop = asyncio.get_running_loop()
        worker = self._worker
        if worker is None or self._support is None or self._is_closed:
            return
        if self._support.capability.is_being_tested:
            return
        self._own_kernels = self._kernels.running()
        self._agents.forget(self._own_kernels)
        leases = await self._context.run(worker.owned_leases)
        if leases:
            self._kernels.observe()
        self._activity.observe_kernels({lease.holder.id: lease for lease in leases})
        for lease in leases:
            # It may have been closed by a call that came in between.
            if not self._is_closed and worker.claim(lease):
                self._submit(worker, lease)

    def _submit(self, worker: SuspendWorker, lease: Lease) -> None:
        is_transfer = worker.is_in_transfer(lease)
        pool = self._transfers if is_transfer else self._checks
        work = pool.submit(self._work, worker, lease)
        work.add_done_callback(partial(_give_up_cancelled, worker, lease))

    def _work(self, worker: SuspendWorker, lease: Lease) -> None:
        worker.work(lease)
        self._notify_from_thread()

    def _notify_from_thread(self) -> None:
        """What was moved may have freed capacity for others, and pages show it."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has been closed
                loop.call_soon_threadsafe(self._context.notify_changed)

    async def before_kill(self, kernel_id: str, pid: int) -> None:
        """See `ServerContext.before_kill`. In a thread of its own: those of the pools
        may all be at work.
        """
        if self._worker is not None:
            await asyncio.to_thread(self._worker.suspend_before_kill, kernel_id, pid)

    def close(self) -> None:
        """Begin nothing more. A transfer under way is brought to its end: giving it up
        would lose a kernel's state.
        """
        self._is_closed = True
        if self._polling is not None:
            self._polling.cancel()
        self._activity.close()
        for pool in (self._transfers, self._checks):
            pool.shutdown(wait=False, cancel_futures=True)
        helper = self._helper
        if helper is not None:
            threading.Thread(
                target=helper.close, name="aistack-helper-ends", daemon=True
            ).start()


def _give_up_cancelled(worker: SuspendWorker, lease: Lease, work: Future[None]) -> None:
    """End the claim of work that was cancelled before it began, so that the end of its
    kernel does not wait for it.
    """
    if work.cancelled():
        worker.give_up(lease)
