"""A system bus with a systemd on it, scripted, on a real Unix socket: it speaks D-Bus to
the real client, and writes down what it is asked.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jeepney
from jeepney.low_level import Message, Parser
from jeepney.wrappers import new_error, new_method_return

GUID = b"0123456789abcdef0123456789abcdef"
EXISTS = "org.freedesktop.systemd1.UnitExists"


class SystemBus:
    """Answers each connection in a thread of its own.

    Args:
        path: of its socket.

    Attributes:
        calls: what systemd was asked: the method's name and its arguments.
        units: the scopes that it has started.
        refusals: an error's name and text by the method that it is for.
        is_mute: nothing is answered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.units: set[str] = set()
        self.refusals: dict[str, tuple[str, str]] = {}
        self.is_mute = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(
                target=self._serve, args=(connection,), daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            rest = self._authenticate(connection)
            parser = Parser()
            parser.add_data(rest)
            while True:
                message = parser.get_next_message()
                if message is not None:
                    self._answer(connection, message)
                    continue
                data = connection.recv(65536)
                if not data:
                    return
                parser.add_data(data)

    def _authenticate(self, connection: socket.socket) -> bytes:
        """SASL EXTERNAL as the D-Bus specification has it; what comes behind it."""
        received = b""
        while b"BEGIN\r\n" not in received:
            part = connection.recv(4096)
            if not part:
                raise OSError
            received += part
            if part.lstrip(b"\0").startswith(b"AUTH"):
                connection.sendall(b"OK " + GUID + b"\r\n")
            elif part.startswith(b"NEGOTIATE_UNIX_FD"):
                connection.sendall(b"AGREE_UNIX_FD\r\n")
        return received.partition(b"BEGIN\r\n")[2]

    def _answer(self, connection: socket.socket, message: Message) -> None:
        if self.is_mute:
            return
        reply = self._reply(message)
        reply.header.fields[jeepney.HeaderFields.destination] = ":1.7"
        connection.sendall(reply.serialise(serial=message.header.serial))

    def _reply(self, message: Message) -> Message:
        method = message.header.fields[jeepney.HeaderFields.member]
        if method == "Hello":
            return new_method_return(message, "s", (":1.7",))
        self.calls.append((method, tuple(message.body)))
        if method in self.refusals:
            name, text = self.refusals[method]
            return new_error(message, name, "s", (text,))
        if method == "Get":
            return new_method_return(message, "v", (("s", "252.39"),))
        if method == "StartTransientUnit":
            return self._start(message)
        return new_method_return(message)

    def _start(self, message: Message) -> Message:
        name = message.body[0]
        if name in self.units:
            text = f"Unit {name} was already loaded"
            return new_error(message, EXISTS, "s", (text,))
        self.units.add(name)
        job = "/org/freedesktop/systemd1/job/1"
        return new_method_return(message, "o", (job,))


@contextlib.contextmanager
def system_bus(folder: Path) -> Iterator[SystemBus]:
    """A bus in a folder, until the block ends."""
    bus = SystemBus(folder / "bus")
    try:
        yield bus
    finally:
        bus.close()
