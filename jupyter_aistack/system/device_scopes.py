"""Scopes of systemd in which a process may open certain devices and no others, asked for
over D-Bus; see org.freedesktop.systemd1(5) and systemd.resource-control(5).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jupyter_aistack.exceptions import ProviderError

from .processes import started_at
from .users import is_root

BUS = Path("/run/dbus/system_bus_socket")
RUNS = Path("/run/systemd/system")
"""There while systemd is the first process, see sd_booted(3)."""
LIBRARY = "jeepney"
ANSWER_SECONDS = 5.0
LEAST_SECONDS = 0.001
MOST_BYTES = 65536
_ALREADY = "org.freedesktop.systemd1.UnitExists"
_TERMINALS = (("/dev/ptmx", "rw"), ("/dev/tty", "rw"), ("char-pts", "rw"))
"""What every program needs beside the pseudo devices that ``closed`` leaves open."""

Property = tuple[str, tuple[str, Any]]
"""A property of a unit: its name, and its D-Bus type and value."""


class DeviceScopes:
    """Puts processes into scopes, and changes what these let them open.

    Args:
        bus: the socket of the system's bus.
        runs: a folder that is there while systemd runs.
        seconds: how long an answer may take.
    """

    def __init__(
        self, bus: Path = BUS, runs: Path = RUNS, seconds: float = ANSWER_SECONDS
    ) -> None:
        self._bus = bus
        self._runs = runs
        self._seconds = seconds

    def refusal(self) -> str:
        """Why no process can be put into a scope here; empty where it can."""
        if not self._runs.is_dir():
            return "systemd does not run here"
        if find_spec(LIBRARY) is None:
            return f"the Python package {LIBRARY} is not installed (extra: systemd)"
        if not is_root():
            return "only root may have systemd move the processes of others"
        try:
            self._call("GetVersion", "", ())
        except ProviderError as error:
            return error.message
        return ""

    def confine(self, pid: int, files: Sequence[str]) -> None:
        """Let a process, and all that it starts, open these devices and no others from
        now on.

        Args:
            pid: the process.
            files: device files, or names as ``char-pts``.

        Raises:
            ProviderError: it is gone, or systemd refuses: it can open what it could.
        """
        started = started_at(pid)
        if started is None:
            raise ProviderError(f"process {pid} does not run")
        name = f"aistack-{pid}-{round(started * 100)}.scope"
        try:
            self._start(name, pid, files)
        except ProviderError as error:
            if error.facts.get("error_name") != _ALREADY:
                raise
            self._change(name, files)

    def _start(self, name: str, pid: int, files: Sequence[str]) -> None:
        properties: list[Property] = [
            ("Description", ("s", f"Leased devices of process {pid}")),
            ("PIDs", ("au", [pid])),
            ("CollectMode", ("s", "inactive-or-failed")),
            ("DevicePolicy", ("s", "closed")),
            ("DeviceAllow", ("a(ss)", _allowed(files))),
        ]
        auxiliary: list[tuple[str, list[Property]]] = []
        body = (name, "fail", properties, auxiliary)
        self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)

    def _change(self, name: str, files: Sequence[str]) -> None:
        # An empty list takes back what was allowed; another adds to it.
        properties: list[Property] = [
            ("DeviceAllow", ("a(ss)", [])),
            ("DeviceAllow", ("a(ss)", _allowed(files))),
        ]
        self._call("SetUnitProperties", "sba(sv)", (name, True, properties))

    def _call(self, method: str, signature: str, body: tuple[Any, ...]) -> None:
        """Call a method of systemd's manager. Raises `ProviderError`."""
        import jeepney

        manager = jeepney.DBusAddress(
            "/org/freedesktop/systemd1",
            bus_name="org.freedesktop.systemd1",
            interface="org.freedesktop.systemd1.Manager",
        )
        message = jeepney.new_method_call(manager, method, signature or None, body)
        if method == "GetVersion":
            properties = jeepney.Properties(manager)
            message = properties.get("Version")
        try:
            reply = self._exchange([jeepney.message_bus.Hello(), message])
        except (OSError, jeepney.AuthenticationError) as error:
            raise ProviderError(
                f"systemd does not answer at {self._bus}: {error}"
            ) from error
        _check(reply)

    def _exchange(self, messages: Iterable[Any]) -> Any:
        """Send messages one by one; the reply to the last. Not by the library's own
        connection, which waits for a bus for ever.

        Raises:
            OSError: there is no bus, or no reply in time.
        """
        from jeepney.io.blocking import prep_socket
        from jeepney.low_level import HeaderFields, Parser

        deadline = time.monotonic() + self._seconds
        reply = None
        parser = Parser()
        with prep_socket(str(self._bus), timeout=self._seconds) as line:
            for serial, message in enumerate(messages, 1):
                line.sendall(message.serialise(serial=serial))
                answered = 0
                while answered != serial:
                    reply = _received(line, parser, deadline)
                    answered = reply.header.fields.get(HeaderFields.reply_serial, 0)
        return reply


def _received(line: socket.socket, parser: Any, deadline: float) -> Any:
    """The next message. Raises `OSError`."""
    while (message := parser.get_next_message()) is None:
        # 0 would not wait, and not time out either.
        line.settimeout(max(deadline - time.monotonic(), LEAST_SECONDS))
        data = line.recv(MOST_BYTES)
        if not data:
            raise ConnectionError("it closed the connection")
        parser.add_data(data)
    return message


def _check(reply: Any) -> None:
    import jeepney

    if reply.header.message_type is not jeepney.MessageType.error:
        return
    name = reply.header.fields.get(jeepney.HeaderFields.error_name, "")
    text = reply.body[0] if reply.body else name
    raise ProviderError(f"systemd refuses: {text}", error_name=name)


def _allowed(files: Iterable[str]) -> list[tuple[str, str]]:
    return [*_TERMINALS, *((file, "rw") for file in files)]
