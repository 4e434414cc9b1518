"""The process behind ``jupyter aistack broker``: its parts, tied together and taken down
again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from jupyter_aistack._version import __version__
from jupyter_aistack.broker.api.line_server import LineServer
from jupyter_aistack.broker.api.open_connections import ConnectionLimits
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.system import service_manager
from jupyter_aistack.system.broker_path import DEFAULT_PATH
from jupyter_aistack.system.open_files import raise_open_files

from .abilities import missing_abilities
from .admin_file import AdminFile
from .calls import Calls
from .ledger_place import broker_ledger_url
from .listening import BrokerSocket, listen
from .maintenance import TurnLoop, keep
from .policy_reload import PolicyReload
from .session import Sessions
from .settings import BrokerSettings
from .snapshot_poll import SnapshotPoll

log = logging.getLogger("jupyter_aistack")

PER_USER = 512
"""Connections that one user may have open."""
WRITE_SECONDS = 30.0
OWN_FILES = 256
"""Open files that are left to the broker: its ledger, its drivers, its processes, and
connections that are refused.
"""
LEAST_CONNECTIONS = 64


def connection_limits() -> ConnectionLimits:
    """What users may take of the socket, so that the broker has files left to itself."""
    files = raise_open_files()
    return ConnectionLimits(
        connections=max(files - OWN_FILES, LEAST_CONNECTIONS),
        connections_per_user=PER_USER,
        write_seconds=WRITE_SECONDS,
    )


@dataclass(frozen=True, kw_only=True)
class DaemonOptions:
    """How a host broker is started.

    Attributes:
        socket: where it listens.
        config: the administrator's file; None for the usual one, which may be missing.
        ledger_url: where leases are written down; empty for what is configured.
    """

    socket: Path = Path(DEFAULT_PATH)
    config: Path | None = None
    ledger_url: str = ""


class HostBroker:
    """A host's broker for all of its users.

    Args:
        options: how it was started.
    """

    def __init__(self, options: DaemonOptions) -> None:
        self._options = options
        self._file = AdminFile(options.config)

    def run(self) -> None:
        """Serve until a signal ends it.

        Raises:
            AIStackError: it cannot begin; the sentence says why.
        """
        mark = self._file.mark()
        settings = self._file.load()
        path = self._options.socket.absolute()
        listener = listen(path, service_manager.inherited_listener(path))
        try:
            broker = self._build(settings)
            try:
                reload = PolicyReload(self._file, mark, settings, broker)
                asyncio.run(_Serving(broker, listener, reload).run())
            finally:
                broker.close()
        finally:
            listener.close()

    def _build(self, settings: BrokerSettings) -> Broker:
        url = broker_ledger_url(self._options.ledger_url, settings.ledger_url)
        return settings.build_broker_on(url)


class _Serving:
    """The parts that live as long as the event loop.

    Args:
        broker: answers.
        listener: where clients connect.
        reload: gives the verbs as the administrator's file says now.
    """

    def __init__(
        self, broker: Broker, listener: BrokerSocket, reload: PolicyReload
    ) -> None:
        self._broker = broker
        self._listener = listener
        self._reload = reload
        self._calls = Calls(reload.build_service())
        self._sessions = Sessions(
            self._calls, broker.host_state.identity.name, reload.build_hub_accounts()
        )
        self._server = self._new_server()
        poll = SnapshotPoll(self._calls)
        self._calls.add_async_verb("snapshot", poll.answer)
        self._calls.on_change(poll.note_change)

    def _new_server(self) -> LineServer:
        return LineServer(self._sessions.open, log, connection_limits())

    async def run(self) -> None:
        """Serve until a signal comes."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.ask)
        # Adopted before anybody is answered: what a broker before this one has left.
        await self._calls.run(self._broker.maintain)
        await self._server.start(self._listener.listener)
        loops = (self._keep_turns(), self._follow_turns(), _report_life())
        tasks = [asyncio.create_task(each) for each in loops]
        for text in missing_abilities():
            log.warning("it is not root, and cannot %s", text)
        log.info(
            "jupyter_aistack %s, process %d, listens at %s",
            __version__,
            os.getpid(),
            self._listener.path,
        )
        status = service_manager.status_text(f"listens at {self._listener.path}")
        service_manager.notify(service_manager.READY, status)
        try:
            await stopped.wait()
        finally:
            service_manager.notify(service_manager.STOPPING)
            await self._stop(tasks)

    async def _stop(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.close()
        self._calls.close()

    # -- turns -------------------------------------------------------------------------

    async def _keep_turns(self) -> None:
        steps = {"keep": self._keep}
        await TurnLoop(steps, lambda: self._reload.cycle_seconds).run()

    async def _follow_turns(self) -> None:
        """A ledger or a driver that hangs must not keep these back."""
        steps = {"settings": self._follow_settings, "socket": self._check_socket}
        await TurnLoop(steps, lambda: self._reload.cycle_seconds).run()

    async def _follow_settings(self) -> None:
        service = await self._calls.run(self._reload.follow)
        if service is not None:
            service.refusals = self._calls.service.refusals
            self._calls.service = service
            self._sessions.follow_hub(self._reload.build_hub_accounts())

    async def _keep(self) -> None:
        await self._calls.run(keep, self._broker)

    async def _check_socket(self) -> None:
        """Listen anew where the socket's file was taken away; nobody would find the
        broker.
        """
        if self._listener.is_in_place:
            return
        if os.path.lexists(self._listener.path):
            raise InvalidRequest(
                f"socket: {self._listener.path} was replaced by another file: take it "
                "away, and the host broker listens there again",
                field="socket",
            )
        log.warning("%s was taken away; listening anew", self._listener.path)
        self._listener.listen_again()
        before = self._server
        self._server = self._new_server()
        await self._server.start(self._listener.listener)
        before.stop_listening()


async def _report_life() -> None:
    """Tell systemd's watchdog that calls are answered."""
    seconds = service_manager.watchdog_seconds()
    while seconds is not None:
        service_manager.notify(service_manager.ALIVE)
        await asyncio.sleep(seconds / 3)
