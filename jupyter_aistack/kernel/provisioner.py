"""The provisioner that Jupyter launches kernels through: it keeps a lease for the life
of a kernel.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Mapping
from typing import Any

from jupyter_client.connect import KernelConnectionInfo

from jupyter_aistack.exceptions import InvalidRequest, Refused
from jupyter_aistack.system.runtimes import blindly_hidden_environment

from .allocation import KernelAllocation
from .environment import launch_environment
from .kernel_leases import KernelLeases
from .launch_rejected import LaunchRejected
from .lease_monitor import LeaseMonitor
from .process_control import KernelControl
from .server_link import LEDGER_SECONDS, ServerLink, describe
from .settings import SliceSettings
from .standalone import configured_hidden_environment, own_broker
from .teardown import Teardown
from .verify import bind_process, check_in_background

POLL_SECONDS = 0.1
"""Between two looks whether a launch that waits has been granted its slice."""


class SliceProvisioner(SliceSettings):
    """Launches a kernel on this host with a slice, and gives the slice back when the
    kernel is gone.
    """

    def __init__(self, **kwargs: Any) -> None:
        ours = {
            name: kwargs.pop(name) for name in tuple(kwargs) if name not in _JUPYTERS
        }
        super().__init__(**kwargs)
        self._complaint = self.configure(ours)
        self._server = ServerLink(self)
        self._leases: KernelLeases | None = None
        self._monitor: LeaseMonitor | None = None
        self._allocation = KernelAllocation()
        self._command: list[str] = []
        self._was_launched = False
        self._has_death_callback = False
        self._freed_pid: int | None = None

    # -- what Jupyter calls ------------------------------------------------------------

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Get the slice, then the environment. A first launch may be turned down, a
        later launch never is.
        """
        try:
            session_name = (kwargs.get("env") or {}).get("JPY_SESSION_NAME", "")
            self._allocation = await self._allocate(session_name)
            kwargs = await super().pre_launch(**kwargs)
        except BaseException:
            await self._abandon_launch()
            raise
        kwargs["env"] = self._environment(kwargs["env"])
        return kwargs

    async def launch_kernel(
        self, cmd: list[str], **kwargs: Any
    ) -> KernelConnectionInfo:
        """Start the process; when that fails nothing more will be called, so the slice
        goes back here.
        """
        self._command = cmd
        try:
            return await super().launch_kernel(cmd, **kwargs)
        except BaseException:
            await self._abandon_launch()
            raise

    async def post_launch(self, **kwargs: Any) -> None:
        """Tie the slice to the new process and have it checked from inside, in the
        background.
        """
        await super().post_launch(**kwargs)
        # From here on nothing may turn the kernel down: a restart must not lose it.
        self._was_launched = True
        if self._leases is None or self.pid is None:
            return
        self._release_on_death()
        allocation = self._allocation
        if allocation.prepared is not None:
            # Before anything else: threads that the process starts later inherit it.
            bind_process(self.pid, allocation.prepared.cores)
        self._stop_monitor()
        self._monitor = LeaseMonitor(
            self._leases,
            self.pid,
            grace_seconds=self.grace_seconds,
            is_alone=self._server.context is None,
            is_waiting=allocation.is_waiting,
            log=self.log,
        ).start()
        if allocation.leases:
            # A launch that has returned has its lease bound: it dies with the process.
            await self._server.run_changing(self._monitor.wait_until_bound)
        if allocation.prepared is not None:
            self._start_check(self._leases, allocation, kwargs.get("env") or {})

    async def shutdown_requested(self, restart: bool = False) -> None:
        """The process is about to end, maybe to be launched again: keep what it holds
        in our name until then.
        """
        await super().shutdown_requested(restart=restart)
        await self._hold_for_restart()

    async def send_signal(self, signum: int) -> None:
        """As `shutdown_requested`, before a signal that ends the process; Jupyter's
        shutdown begins with an interrupt.

        `kill` and `terminate` come through here, for restarts too, and never say so:
        nothing is released.
        """
        is_interrupt = signum == signal.SIGINT
        if not is_interrupt or getattr(self.parent, "shutting_down", False):
            # First: the moment the process ends its leases would be granted to others.
            await self._hold_for_restart()
        if signum in _ENDING_SIGNALS and self.pid != self._freed_pid:
            await self._before_kill()
        await super().send_signal(signum)

    async def terminate(self, restart: bool = False) -> None:
        """Ask the process to end, once its work on a GPU is over."""
        await self._free_device()
        await super().terminate(restart=restart)

    async def kill(self, restart: bool = False) -> None:
        """End the process; a process that uses a GPU is asked to end first, once its
        work there is over.
        """
        teardown = await self._free_device()
        if teardown is not None:
            await teardown.ask()
        await super().kill(restart=restart)

    async def _free_device(self) -> Teardown | None:
        """Take the process off its GPU, if it uses a GPU; None when there was nothing
        to do, or it is done already.
        """
        pid = self.pid
        # Most kernels have no GPU to be taken off, and must end as fast as ever.
        if self._leases is None or self._allocation.has_gpus is False:
            return None
        if pid is None or pid == self._freed_pid or not await self._is_running():
            return None
        self._freed_pid = pid
        # The restored state first: interrupting or ending a process that the driver has
        # restored may hang the host.
        await self._before_kill()
        device = await self._server.run_logged(
            self._leases.on_device, pid, self._allocation.leases
        )
        if device is None or not await self._server.run_logged(device.has_started):
            return None
        control = KernelControl(
            device,
            self._server.run_logged,
            interrupt=self._interrupt,
            signal=self.send_signal,
            poll=self.poll,
        )
        teardown = Teardown(control)
        await teardown.free_device()
        return teardown

    async def _is_running(self) -> bool:
        return self.has_process and await self.poll() is None

    async def _before_kill(self) -> None:
        """Take what was restored in the process off the device before it is ended, see
        `ServerContext.before_kill`.
        """
        context = self._server.context
        if context is None or not self.has_process or self.pid is None:
            return
        try:
            await context.before_kill(self.kernel_id, self.pid)
        except Exception:
            self.log.exception(
                "kernel %s is ended, but what comes before that failed", self.kernel_id
            )

    async def _interrupt(self) -> None:
        """Interrupt the cell. Kernels that want a message instead of the signal had
        that message when their shutdown began.
        """
        if self.kernel_spec.interrupt_mode == "signal":
            await super().send_signal(signal.SIGINT)

    async def _hold_for_restart(self) -> None:
        if self._leases is not None and self.pid is not None and self.has_process:
            await self._server.run_changing(self._leases.hold_for_restart, self.pid)

    async def cleanup(self, restart: bool = False) -> None:
        """Give everything back unless the kernel comes again. The only call whose
        `restart` is reliable.
        """
        try:
            await super().cleanup(restart=restart)
        finally:
            if not restart:
                await self._release()

    async def get_provisioner_info(self) -> dict[str, Any]:
        """Adds ``aistack`` when the kernel holds something: its leases' ids and
        tokens.
        """
        info = await super().get_provisioner_info()
        tokens = {lease.id: lease.token for lease in self._allocation.leases}
        if tokens:
            info["aistack"] = {"leases": tokens}
        return info

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        """Take over a kernel another process launched. Its leases are found in the
        ledger by its id.
        """
        await super().load_provisioner_info(provisioner_info)
        self._was_launched = True
        if provisioner_info.get("aistack"):
            self._leases = self._new_leases()
            allocation = await self._server.run_changing(self._leases.prepare)
            self._allocation = allocation or KernelAllocation()

    # -- getting the slice -------------------------------------------------------------

    async def _allocate(self, session_name: str) -> KernelAllocation:
        """What the kernel may start with.

        Raises:
            LaunchRejected: on a first launch, what it asks for makes no sense here.
        """
        try:
            if self._complaint:
                raise InvalidRequest(self._complaint)
            self.check_slice()
            return await asyncio.wait_for(
                self._acquire(self._server.label(session_name)),
                LEDGER_SECONDS + self.wait_seconds,
            )
        except (InvalidRequest, Refused) as error:
            has_asked = bool(self.slice or self._complaint)
            if has_asked and not self._was_launched:
                raise LaunchRejected(error.message) from error
            return self._no_allocation(error.message)
        except Exception as error:  # whatever fails on our side, users get their kernel
            return self._no_allocation(describe(error))

    def _no_allocation(self, why: str) -> KernelAllocation:
        how = f"without its slice {self.slice}" if self.slice else "as a plain one"
        self.log.warning("kernel %s starts %s: %s", self.kernel_id, how, why)
        if not self.slice:
            return KernelAllocation(why_none=why)
        # It was to have a slice, and must not see all of the GPUs instead.
        hidden = blindly_hidden_environment()
        return KernelAllocation(why_none=why, has_gpus=True, hidden=hidden)

    async def _acquire(self, label: str) -> KernelAllocation:
        if not self.slice and self._server.context is None:
            hidden = await self._server.run(configured_hidden_environment)
            return KernelAllocation(has_gpus=bool(hidden), hidden=hidden)
        if self._leases is None:
            self._leases = self._new_leases()
        allocation = await self._server.run(
            self._leases.acquire, self.slice, label=label, **self.terms
        )
        if not self.slice:
            return allocation
        if allocation.is_waiting:
            allocation = await self._wait(self._leases, allocation)
        if not allocation.leases:
            self.log.warning(
                "kernel %s starts without a device: %s",
                self.kernel_id,
                allocation.why_none or "no slice is free",
            )
        return allocation

    async def _wait(
        self, leases: KernelLeases, allocation: KernelAllocation
    ) -> KernelAllocation:
        """Wait for `wait_seconds` at most until the request is granted."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.wait_seconds
        while allocation.is_waiting and clock() < deadline:
            await asyncio.sleep(min(POLL_SECONDS, deadline - clock()))
            allocation = await self._server.run(leases.poll)
        return allocation

    def _new_leases(self) -> KernelLeases:
        context = self._server.context
        broker = own_broker if context is None else lambda: context.kernel_broker
        return KernelLeases(broker, self.kernel_id)

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        context = self._server.context
        return launch_environment(
            env,
            self._allocation,
            kernel_id=self.kernel_id,
            socket_path=getattr(context, "socket_path", ""),
            drop=self.drop_environment,
            # Launched by a kernel that holds a slice: it shares that slice.
            keeps_lease=context is None and not self.slice,
        )

    # -- watching and checking ---------------------------------------------------------

    def _start_check(
        self, leases: KernelLeases, allocation: KernelAllocation, env: Mapping[str, str]
    ) -> None:
        """Check in a thread of its own what the kernel really got, and write it down;
        nothing waits for it.
        """
        assert self.pid is not None
        notify = self._server.notifier()

        def failed(error: Exception) -> None:
            self.log.warning(
                "the slice of kernel %s could not be checked: %s", self.kernel_id, error
            )

        check_in_background(
            leases,
            allocation,
            pid=self.pid,
            command=list(self._command),
            environment=env,
            on_done=notify,
            on_failure=failed,
        )

    def _release_on_death(self) -> None:
        """Release when the restarter gives up on the kernel; nothing else is called
        then.
        """
        add = getattr(self.parent, "add_restart_callback", None)
        if add is not None and not self._has_death_callback:
            add(self._on_dead, "dead")
            self._has_death_callback = True

    def _on_dead(self) -> None:
        self._stop_monitor()
        threading.Thread(target=self._release_now, daemon=True).start()

    def _release_now(self) -> None:
        try:
            if self._leases is not None:
                self._leases.release()
        except Exception as error:
            self.log.warning(
                "the slice of kernel %s could not be released: %s",
                self.kernel_id,
                error,
            )

    # -- giving back -------------------------------------------------------------------

    async def _abandon_launch(self) -> None:
        """Give everything back: a launch has failed, and nothing more is called."""
        # Jupyter leaves the id of such a kernel among those that are being started, and
        # a server that is asked to stop then waits for it for ever
        # (`_async_shutdown_all` of jupyter_client awaits the failed launch, then looks
        # for its kernel). There is no public way to have it forgotten.
        kernel_manager = getattr(self.parent, "parent", None)
        pending = getattr(kernel_manager, "_pending_kernels", None)
        if isinstance(pending, dict):
            pending.pop(self.kernel_id, None)
        await self._release()

    async def _release(self) -> None:
        self._stop_monitor()
        self._allocation = KernelAllocation()
        if self._leases is not None:
            # Shielded: a server that stops cancels this, and the lease would be kept.
            await asyncio.shield(self._server.run_changing(self._leases.release))

    def _stop_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.stop()
            self._monitor = None


_ENDING_SIGNALS = (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM))
_JUPYTERS = frozenset({"parent", "config", "log", "kernel_id", "kernel_spec"})
"""Arguments of Jupyter; all others are settings of the kernelspec."""
