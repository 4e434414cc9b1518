"""The Jupyter server around a kernel's provisioner, where there is a server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from jupyter_aistack.exceptions import AIStackError

P = ParamSpec("P")
T = TypeVar("T")

LEDGER_SECONDS = 20.0
"""How long a kernel's start or end waits for the broker itself: its first use imports it
and opens the ledger and the drivers, which takes a few seconds on a busy machine."""


class ServerLink:
    """Runs a provisioner's calls of the broker where they belong: in the threads of the
    server's extension, or in this process's own.

    Args:
        provisioner: whose server; its ``parent`` is a kernel manager.
    """

    def __init__(self, provisioner: Any) -> None:
        self._provisioner = provisioner

    @property
    def serverapp(self) -> Any:
        """The Jupyter server; None for kernels started without a server."""
        above = self._provisioner.parent
        while above is not None and not hasattr(above, "web_app"):
            above = getattr(above, "parent", None)
        return above

    @property
    def context(self) -> Any:
        """The server extension's context; None without a server or without the
        extension.
        """
        serverapp = self.serverapp
        return None if serverapp is None else serverapp.web_app.settings.get("aistack")

    def label(self, session_name: str) -> str:
        """The notebook's path for people, relative to the server's root where it lies
        below.
        """
        root = getattr(self.serverapp, "root_dir", "")
        path = Path(session_name)
        is_below = bool(root) and path.is_relative_to(root)
        return str(path.relative_to(root)) if is_below else session_name

    # -- running -----------------------------------------------------------------------

    async def run(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a synchronous function in a thread."""
        context = self.context
        if context is None and not threading.main_thread().is_alive():
            # The interpreter shuts down, and starts no thread any more: programs such
            # as `jupyter run` end their kernels only then.
            return function(*args, **kwargs)
        run = asyncio.to_thread if context is None else context.run
        result: T = await run(function, *args, **kwargs)
        return result

    async def run_logged(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        """As `run`; a failure is logged and gives None. It costs no kernel: the ledger
        has deadlines of its own.
        """
        try:
            return await asyncio.wait_for(
                self.run(function, *args, **kwargs), LEDGER_SECONDS
            )
        except Exception as error:
            self._provisioner.log.warning(
                "leases of kernel %s: %s", self._provisioner.kernel_id, describe(error)
            )
            return None

    async def run_changing(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        """As `run_logged`, for what changes leases: the server's pages show it."""
        try:
            return await self.run_logged(function, *args, **kwargs)
        finally:
            self.notifier()()

    def notifier(self) -> Callable[[], None]:
        """What notifies the server's listeners, from any thread, that leases may have
        changed.
        """
        context = self.context
        if context is None:
            return lambda: None
        loop = asyncio.get_running_loop()

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(context.notify_changed)

        return notify


def describe(error: Exception) -> str:
    """An error in one sentence."""
    if isinstance(error, AIStackError) and error.message:
        return error.message
    if isinstance(error, TimeoutError):
        return f"the broker has not answered within {LEDGER_SECONDS:.0f} seconds"
    return f"{type(error).__name__}: {error}"
