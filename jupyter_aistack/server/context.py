"""What the server's parts share: the broker, built at first use, and the threads it is
called from.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from jupyter_aistack.core.wire.verbs import CHANGING_VERBS
from jupyter_aistack.exceptions import (
    AIStackError,
    LedgerError,
    LedgerUnavailable,
    ProviderError,
)

if TYPE_CHECKING:
    from jupyter_aistack.broker.api.caller import Caller
    from jupyter_aistack.broker.api.service import Service
    from jupyter_aistack.broker.broker import Broker
    from jupyter_aistack.broker.remote.port import KernelBroker
    from jupyter_aistack.broker.remote.service import VerbService
    from jupyter_aistack.system.broker_socket import BrokerSocket

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
RETRY_SECONDS = 10.0
AsyncVerb = Callable[[Mapping[str, Any], "Caller"], Awaitable[dict[str, Any]]]
"""A verb that is answered on the event loop, because its answer may be held back."""


class ServerContext:
    """The one object the extension leaves in ``web_app.settings["aistack"]``.

    Where the host has a broker of its own, all calls go there. Elsewhere one is built
    at first use, because opening a ledger and asking drivers takes longer than a
    server's start may. A broker that cannot be built raises its error each time it is
    asked for, and is tried again every ten seconds.

    Args:
        build: makes the broker.
        log: the extension's logger.
        serve: makes the verbs of that broker; by default with no admin but root.
        host_broker: gives the connection to the host's broker; None where there is
            none.

    Attributes:
        socket_path: the Unix socket kernels speak to; empty while there is none.
        event_counts: how many events of each kind have been passed on since this
            server started.
        before_kill: called with a kernel's id, and the process of it that a signal is
            about to end with all below it; ending a process whose GPU state was
            restored may hang the host, and this takes the state away first. Never
            raises.
    """

    def __init__(
        self,
        build: Callable[[], Broker],
        log: logging.Logger,
        serve: Callable[[Broker], Service] | None = None,
        host_broker: Callable[[], BrokerSocket | None] | None = None,
    ) -> None:
        self.log = log
        self._serve = serve
        self.socket_path = ""
        self.event_counts: Counter[str] = Counter()
        self.before_kill: Callable[[str, int], Awaitable[None]] = _nothing_to_do
        self._build = build
        self._find_host_broker = host_broker or _no_host_broker
        self._host_broker: BrokerSocket | None = None
        self._broker: Broker | None = None
        self._kernel_broker: KernelBroker | None = None
        self._service: VerbService | None = None
        self._error: AIStackError | None = None
        self._failed_at = 0.0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="aistack")
        self._async_verbs: dict[str, AsyncVerb] = {}
        self._on_built: list[Callable[[KernelBroker], None]] = []
        self._on_embedded: list[Callable[[Broker], None]] = []
        self._on_change: list[Callable[[], None]] = []
        self._pid = os.getpid()
        atexit.register(self.close)

    # -- the broker --------------------------------------------------------------------

    @property
    def kernel_broker(self) -> KernelBroker:
        """The broker, for the kernels of this server; builds it if need be, so ask for
        it in a thread or after `ready`.

        Raises:
            AIStackError: it cannot be built (503), with the sentence that says why.
        """
        with self._lock:
            if self._kernel_broker is None:
                self._kernel_broker = self._build_or_raise()
            return self._kernel_broker

    @property
    def broker(self) -> Broker:
        """The broker of this process. Raises as `kernel_broker` does.

        Raises:
            LedgerUnavailable: the host's broker grants here, and none of our own.
        """
        _ = self.kernel_broker
        if self._broker is None:
            raise LedgerUnavailable("the slices of this host are granted by its broker")
        return self._broker

    @property
    def service(self) -> VerbService:
        """The broker's verbs. Raises as `kernel_broker` does."""
        _ = self.kernel_broker
        if self._service is None:
            self._service = self._new_service()
        return self._service

    def _new_service(self) -> VerbService:
        from jupyter_aistack.broker.api.service import Service
        from jupyter_aistack.broker.remote.service import RemoteService

        if self._host_broker is not None:
            return RemoteService(self._host_broker)
        return (self._serve or Service)(self.broker)

    @property
    def is_built(self) -> bool:
        """Whether there is a broker already."""
        return self._kernel_broker is not None

    @property
    def has_host_broker(self) -> bool:
        """Whether the host's broker grants; None of our own is built then."""
        return self._host_broker is not None

    def _build_or_raise(self) -> KernelBroker:
        has_just_failed = time.monotonic() - self._failed_at < RETRY_SECONDS
        if self._error is not None and has_just_failed:
            raise self._error
        try:
            broker = self._connected_or_built()
            for listener in self._on_built:
                listener(broker)
        except Exception as error:
            known = "" if self._error is None else self._error.message
            self._error = _unavailable(error)
            self._failed_at = time.monotonic()
            if self._error.message != known:  # once, not with each attempt
                self.log.warning(
                    "jupyter_aistack grants nothing for now: %s", self._error.message
                )
            raise self._error from error
        self._error = None
        return broker

    def _connected_or_built(self) -> KernelBroker:
        from jupyter_aistack.broker.remote.embedded import EmbeddedBroker
        from jupyter_aistack.broker.remote.remote import RemoteBroker

        self._host_broker = self._host_broker or self._find_host_broker()
        if self._host_broker is not None:
            return RemoteBroker(self._host_broker)
        self._broker = self._build()
        for listener in self._on_embedded:
            listener(self._broker)
        return EmbeddedBroker(self._broker)

    async def ready(self) -> KernelBroker:
        """The broker, built in a thread if need be. Raises as `kernel_broker` does."""
        return await self.run(lambda: self.kernel_broker)

    # -- calling it --------------------------------------------------------------------

    async def run(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a synchronous function in the broker's threads."""
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, partial(function, *args, **kwargs)
        )

    async def call(
        self, verb: str, payload: Mapping[str, Any], caller: Caller
    ) -> dict[str, Any]:
        """Answer one call of the service, and notify the listeners when it may have
        changed something.
        """
        if verb in self._async_verbs and isinstance(payload, Mapping):
            return await self._async_verbs[verb](payload, caller)
        try:
            return await self.run(lambda: self.service.call(verb, payload, caller))
        finally:
            if verb in CHANGING_VERBS:
                self.notify_changed()

    def add_async_verb(self, verb: str, answer: AsyncVerb) -> None:
        """Have a verb answered on the event loop, and not in the broker's threads."""
        self._async_verbs[verb] = answer

    def notify_changed(self) -> None:
        """Tell the listeners that leases or requests may have changed. Call it from the
        event loop.
        """
        for listener in self._on_change:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have `listener` called in the event loop after each change made through this
        server.
        """
        self._on_change.append(listener)

    def on_built(self, listener: Callable[[KernelBroker], None]) -> None:
        """Have `listener` called, in a thread, with the broker as soon as it
        is built.
        """
        self._on_built.append(listener)

    def on_embedded(self, listener: Callable[[Broker], None]) -> None:
        """As `on_built`, for what a broker of this process alone can do; never called
        where the host's broker grants.
        """
        self._on_embedded.append(listener)

    def close(self) -> None:
        """Let go of the broker and its threads. Called at exit, since kernels release
        while their server stops; in a process that was forked from the server it
        changes nothing.
        """
        atexit.unregister(self.close)
        if os.getpid() != self._pid:
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            if self._broker is not None:
                self._broker.close()
            if self._host_broker is not None:
                self._host_broker.close()
            self._broker = None
            self._kernel_broker = None
            self._service = None


def _no_host_broker() -> None:
    """The default: this server has a broker of its own."""


async def _nothing_to_do(kernel_id: str, pid: int) -> None:
    """No device state was ever moved, so none has to be taken away before a kill."""


def _unavailable(error: Exception) -> AIStackError:
    """Any failure to build a broker, as an error that REST answers with 503."""
    if isinstance(error, (LedgerError, ProviderError)):
        return error
    reason = (
        error.message
        if isinstance(error, AIStackError)
        else f"{type(error).__name__}: {error}"
    )
    return LedgerUnavailable(f"the broker could not be started: {reason}")
