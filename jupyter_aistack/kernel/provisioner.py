"""Jupyter's door: a provisioner that keeps a lease for the life of a kernel."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from tornado.web import HTTPError
from traitlets import Float, List, TraitError, Unicode

from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.exceptions import AIStackError, InvalidRequest, Refused

from .environment import OURS, SECRETS, expected, no_device, with_slice, without_secrets
from .kernel_leases import KernelAllocation, KernelLeases, makers, own_broker
from .lease_monitor import LeaseMonitor
from .process_control import KernelControl
from .teardown import Teardown
from .verify import bind_process, check

P = ParamSpec("P")
T = TypeVar("T")

LEDGER_SECONDS = 10.0
"""How long a kernel's start waits for the broker itself (its first use opens the ledger
and the drivers).
"""
POLL_SECONDS = 0.1

_SETTINGS = {
    "slice": 'text such as "1/4", "20GiB" or "cpu:2"',
    "queue": "the name of a queue",
    "wait_seconds": "a number of seconds, 0 or more",
    "grace_seconds": "a number of seconds, 0 or more",
    "drop_environment": "a list of names of environment variables",
}


class LaunchRejected(HTTPError):
    """A launch we turn down. Whichever way a server passes it on, users read the
    sentence and nothing else.

    ``POST /api/kernels`` answers with status and message, ``POST /api/sessions`` with
    ``str()``.
    """

    def __init__(self, message: str) -> None:
        super().__init__(503, message, reason="Slice refused")
        self.message = message

    def __str__(self) -> str:
        return self.message


class SliceProvisioner(LocalProvisioner):
    """Launches a kernel on this host with a slice, and gives the slice back when the
    kernel is gone.

    Settings come from ``metadata.kernel_provisioner.config`` of the kernelspec, or from
    ``c.SliceProvisioner`` for all.
    """

    slice = Unicode(
        "",
        help="""What a kernel leases at launch: ``1/4``, ``20GiB``, ``2``, ``1g.18gb``, ``cpu:2``, ``gpu:1/4``. Empty,
        the default, is nothing until the notebook asks.""",
    ).tag(config=True)

    queue = Unicode(
        "",
        help="The queue its request is charged to; empty, the default, for the user's own.",
    ).tag(config=True)

    wait_seconds = Float(
        2.0,
        help="""Seconds a launch waits for a slice to come free. After that the kernel starts without a device and stays
        in the queue; the slice is attached once it is granted.""",
    ).tag(config=True)

    grace_seconds = Float(
        30.0,
        help="Seconds a dead kernel keeps its slice for being started again. Default 30, at least 0.",
    ).tag(config=True)

    drop_environment = List(
        Unicode(),
        default_value=list(SECRETS),
        help="""Environment variables of the server that kernels do not get, because whatever runs in a notebook could
        read them. The default is the tokens of Jupyter and JupyterHub; take JUPYTERHUB_API_TOKEN off the list for
        notebooks that call the hub or a Dask Gateway with it. AISTACK_LEDGER is dropped too when it holds a password
        and the kernel has a server to ask.""",
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        ours = {
            name: kwargs.pop(name) for name in tuple(kwargs) if name not in _JUPYTERS
        }
        super().__init__(**kwargs)
        self._complaint = self._configure(ours)
        self._tenancy: KernelLeases | None = None
        self._keeper: LeaseMonitor | None = None
        self._holding = KernelAllocation()
        self._command: list[str] = []
        self._was_launched = self._is_hooked = False
        self._was_made_way_for: int | None = None

    def _configure(self, settings: Mapping[str, Any]) -> str:
        """Take the kernelspec's settings; returns what is wrong with them. traitlets
        would drop a typo silently.
        """
        for name, value in settings.items():
            field = f"kernel_provisioner.config.{name}"
            if name not in _SETTINGS:
                return f"{field}: there is no such setting; there is {', '.join(_SETTINGS)}"
            try:
                setattr(self, name, value)
            except TraitError:
                return f"{field}: expected {_SETTINGS[name]}, got {value!r}"
        if self.wait_seconds < 0 or self.grace_seconds < 0:
            name = "wait_seconds" if self.wait_seconds < 0 else "grace_seconds"
            return f"kernel_provisioner.config.{name}: expected {_SETTINGS[name]}"
        return ""

    # -- what Jupyter calls ------------------------------------------------------------

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Get the slice, then the environment. A first launch may be turned down, a
        later one never is.
        """
        try:
            self._holding = await self._claim(
                (kwargs.get("env") or {}).get("JPY_SESSION_NAME", "")
            )
            kwargs = await super().pre_launch(**kwargs)
        except BaseException:
            await self._give_up()
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
            await self._give_up()
            raise

    async def post_launch(self, **kwargs: Any) -> None:
        """Tie the slice to the new process and have it checked from inside, in the
        background.
        """
        await super().post_launch(**kwargs)
        self._was_launched = True
        if self._tenancy is None or self.pid is None:
            return
        self._hear_of_death()
        holding = self._holding
        if holding.prepared is not None:
            bind_process(self.pid, holding.prepared.cores)
        self._stop_keeper()
        if holding.leases:
            await self._quietly(self._tenancy.bind, self.pid)
        self._keeper = LeaseMonitor(
            self._tenancy,
            self.pid,
            grace_seconds=self.grace_seconds,
            is_alone=self._context() is None,
            is_waiting=holding.is_waiting,
            log=self.log,
        ).start()
        if holding.prepared is not None:
            self._start_check(self._tenancy, holding, kwargs.get("env") or {})

    async def shutdown_requested(self, restart: bool = False) -> None:
        """The process is about to end, maybe to be launched again: keep what it holds
        in our name until then.
        """
        await super().shutdown_requested(restart=restart)
        await self._hold()

    async def send_signal(self, signum: int) -> None:
        """As `shutdown_requested`, before a signal that ends the process; Jupyter's
        shutdown begins with an interrupt.

        `kill` and `terminate` come through here, for restarts too, and never say so:
        nothing is released.
        """
        if signum != signal.SIGINT or getattr(self.parent, "shutting_down", False):
            await self._hold()
        if signum in _ENDS and self.pid != self._was_made_way_for:
            await self._before_kill()
        await super().send_signal(signum)

    async def terminate(self, restart: bool = False) -> None:
        """Ask the process to end, once its work on a GPU is over."""
        await self._make_way()
        await super().terminate(restart=restart)

    async def kill(self, restart: bool = False) -> None:
        """End the process; one that uses a GPU is asked to end first, once its work
        there is over.
        """
        teardown = await self._make_way()
        if teardown is not None:
            await teardown.ask()
        await super().kill(restart=restart)

    async def _make_way(self) -> Teardown | None:
        """Take the process off its GPU, if it is on one; None when there was nothing to
        do, or it is done already.
        """
        pid = self.pid
        tenancy = self._tenancy
        if (
            tenancy is None or self._holding.has_gpus is False
        ):  # most kernels, which end as ever
            return None
        if (
            pid is None
            or pid == self._was_made_way_for
            or not self.has_process
            or await self.poll() is not None
        ):
            return None
        self._was_made_way_for = pid
        await self._before_kill()
        device = await self._logged(tenancy.on_device, pid, self._holding.leases)
        if device is None or not await self._logged(device.has_started):
            return None
        ways = KernelControl(
            device,
            self._logged,
            interrupt=self._interrupt,
            signal=self.send_signal,
            poll=self.poll,
        )
        teardown = Teardown(ways)
        await teardown.free_device()
        return teardown

    async def _before_kill(self) -> None:
        """What was restored in its process is taken away before that is ended, see
        `ServerContext.before_kill`.
        """
        context = self._context()
        if context is None or not self.has_process or self.pid is None:
            return
        try:
            await context.before_kill(self.kernel_id, self.pid)
        except Exception:
            self.log.exception(
                "kernel %s is ended, but what comes before that failed", self.kernel_id
            )

    async def _interrupt(self) -> None:
        """Interrupt the cell. Kernels that want a message instead of the signal had one
        when their shutdown began.
        """
        if self.kernel_spec.interrupt_mode == "signal":
            await super().send_signal(signal.SIGINT)

    async def _hold(self) -> None:
        if self._tenancy is not None and self.pid is not None and self.has_process:
            await self._quietly(self._tenancy.hold, self.pid)

    async def cleanup(self, restart: bool = False) -> None:
        """Give everything back unless the kernel comes again. The one call whose
        `restart` tells the truth.
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
        if self._holding.leases:
            info["aistack"] = {
                "leases": {lease.id: lease.token for lease in self._holding.leases}
            }
        return info

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        """Take over a kernel another process launched. Its leases are found in the
        ledger by its id.
        """
        await super().load_provisioner_info(provisioner_info)
        self._was_launched = True
        if provisioner_info.get("aistack"):
            self._tenancy = self._new_tenancy()
            self._holding = (
                await self._quietly(self._tenancy.look) or KernelAllocation()
            )

    # -- getting the slice -------------------------------------------------------------

    async def _claim(self, session_name: str) -> KernelAllocation:
        """What the kernel may start with.

        Raises:
            LaunchRejected: on a first launch, what it asks for makes no sense here.
        """
        try:
            if self._complaint:
                raise InvalidRequest(self._complaint)
            if self.slice:
                parse_spec(self.slice)
            return await asyncio.wait_for(
                self._acquire(self._label(session_name)),
                LEDGER_SECONDS + self.wait_seconds,
            )
        except (InvalidRequest, Refused) as error:
            if (self.slice or self._complaint) and not self._was_launched:
                raise LaunchRejected(error.message) from error
            return self._nothing(error.message)
        except Exception as error:  # whatever fails on our side, users get their kernel
            return self._nothing(
                getattr(error, "message", "") or f"{type(error).__name__}: {error}"
            )

    def _nothing(self, why: str) -> KernelAllocation:
        what = f"without its slice {self.slice}" if self.slice else "as a plain one"
        self.log.warning("kernel %s starts %s: %s", self.kernel_id, what, why)
        return KernelAllocation(note=why, has_gpus=True if self.slice else None)

    async def _acquire(self, label: str) -> KernelAllocation:
        if not self.slice and self._context() is None:
            found = await self._run(_makers_without_ledger)
            return KernelAllocation(has_gpus=bool(found), has_amd="amd" in found)
        if self._tenancy is None:
            self._tenancy = self._new_tenancy()
        holding = await self._run(
            self._tenancy.acquire, self.slice, queue=self.queue, label=label
        )
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.wait_seconds
        while self.slice and holding.is_waiting and (left := deadline - clock()) > 0:
            await asyncio.sleep(min(POLL_SECONDS, left))
            holding = await self._run(self._tenancy.await_turn)
        if self.slice and not holding.leases:
            why = holding.note or "no slice is free"
            self.log.warning(
                "kernel %s starts without a device: %s", self.kernel_id, why
            )
        return holding

    def _new_tenancy(self) -> KernelLeases:
        context = self._context()
        return KernelLeases(
            own_broker if context is None else lambda: context.broker,
            self.kernel_id,
        )

    def _label(self, session_name: str) -> str:
        """The notebook's path for people, relative to the server's root where it lies
        below.
        """
        root = getattr(self._serverapp(), "root_dir", "")
        path = Path(session_name)
        return (
            str(path.relative_to(root))
            if root and path.is_relative_to(root)
            else session_name
        )

    # -- the environment ---------------------------------------------------------------

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        context = self._context()
        holding = self._holding
        socket_path = getattr(context, "socket_path", "")
        changed = without_secrets(
            env, self.drop_environment, has_socket=bool(socket_path)
        )
        if context is None and not self.slice and env.get("AISTACK_LEASE"):
            return (
                changed  # launched by a kernel that holds a slice: it shares that one
            )
        changed = {name: value for name, value in changed.items() if name not in OURS}
        changed["AISTACK_KERNEL"] = self.kernel_id
        if socket_path:
            changed["AISTACK_SOCKET"] = socket_path
        if holding.request is not None:
            changed["AISTACK_REQUEST"] = holding.request.id
        changed |= no_device(has_gpus=bool(holding.has_gpus), has_amd=holding.has_amd)
        return (
            changed
            if holding.prepared is None
            else with_slice(changed, holding.prepared)
        )

    # -- watching and checking ---------------------------------------------------------

    def _start_check(
        self, tenancy: KernelLeases, holding: KernelAllocation, env: Mapping[str, str]
    ) -> None:
        """Check in a thread of its own what the kernel really got, and write it down;
        nothing waits for it.
        """
        prepared = holding.prepared
        pid = self.pid
        command = list(self._command)
        assert prepared is not None
        assert pid is not None
        poke = self._poker()

        def run() -> None:
            try:
                verified, condition = check(
                    expected(prepared, env),
                    pid=pid,
                    command=command,
                    environment=env,
                    is_client=lambda child: tenancy.is_client(holding, child),
                )
                tenancy.activate(holding, verified=verified, condition=condition)
                poke()
            except Exception as error:
                self.log.warning(
                    "the slice of kernel %s could not be checked: %s",
                    self.kernel_id,
                    error,
                )

        threading.Thread(target=run, name="aistack-check", daemon=True).start()

    def _hear_of_death(self) -> None:
        """Release when the restarter gives up on the kernel; that is the only word of
        it there is.
        """
        add = getattr(self.parent, "add_restart_callback", None)
        if add is not None and not self._is_hooked:
            add(self._on_dead, "dead")
            self._is_hooked = True

    def _on_dead(self) -> None:
        self._stop_keeper()
        if self._tenancy is not None:
            threading.Thread(
                target=self._release_now, args=(self._tenancy,), daemon=True
            ).start()

    def _release_now(self, tenancy: KernelLeases) -> None:
        try:
            tenancy.release()
        except Exception as error:
            self.log.warning(
                "the slice of kernel %s could not be released: %s",
                self.kernel_id,
                error,
            )

    # -- giving back -------------------------------------------------------------------

    async def _give_up(self) -> None:
        """A launch failed: nothing more is called for it.

        Jupyter keeps its id as pending, and a server with such an id hangs when it is
        told to stop.
        """
        pending = getattr(
            getattr(self.parent, "parent", None), "_pending_kernels", None
        )
        if isinstance(pending, dict):
            pending.pop(self.kernel_id, None)
        await self._release()

    async def _release(self) -> None:
        self._stop_keeper()
        self._holding = KernelAllocation()
        if self._tenancy is not None:
            await asyncio.shield(self._quietly(self._tenancy.release))

    def _stop_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None

    # -- the server around us ----------------------------------------------------------

    def _serverapp(self) -> Any:
        above = self.parent
        while above is not None and not hasattr(above, "web_app"):
            above = getattr(above, "parent", None)
        return above

    def _context(self) -> Any:
        """The server extension's context; None without a server or without the
        extension.
        """
        serverapp = self._serverapp()
        return None if serverapp is None else serverapp.web_app.settings.get("aistack")

    async def _run(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        context = self._context()
        run = asyncio.to_thread if context is None else context.run
        result: T = await run(function, *args, **kwargs)
        return result

    async def _quietly(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        """Run what changes leases; a failure is logged and costs no kernel, for the
        ledger has deadlines of its own.
        """
        try:
            return await self._logged(function, *args, **kwargs)
        finally:
            self._poker()()

    async def _logged(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        try:
            return await asyncio.wait_for(
                self._run(function, *args, **kwargs), LEDGER_SECONDS
            )
        except Exception as error:
            why = (
                error.message
                if isinstance(error, AIStackError)
                else f"{type(error).__name__}: {error}"
            )
            self.log.warning("leases of kernel %s: %s", self.kernel_id, why)
            return None

    def _poker(self) -> Callable[[], None]:
        """What tells the server's listeners, from any thread, that leases may have
        changed.
        """
        context = self._context()
        if context is None:
            return lambda: None
        loop = asyncio.get_running_loop()

        def poke() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(context.notify_changed)

        return poke


_ENDS = frozenset({signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)})
_JUPYTERS = frozenset({"parent", "config", "log", "kernel_id", "kernel_spec"})


def _makers_without_ledger() -> frozenset[str]:
    from jupyter_aistack.config import load_settings

    return makers(load_settings().build_providers(), "localhost")
