"""The way to the broker of this host: connections to its Unix socket, kept open and used
again by all threads of a process.

A broker may be restarted at any time. A connection that it has closed is opened anew,
and a call that was under way is made again where making it twice is once.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from jupyter_aistack._version import __version__
from jupyter_aistack.core.wire.protocol import (
    SPOKEN,
    BrokerGreeting,
    ClientGreeting,
    ProtocolRange,
    SpokenFor,
    read_broker_greeting,
)
from jupyter_aistack.core.wire.verbs import REPEATABLE_VERBS
from jupyter_aistack.exceptions import (
    InvalidRequest,
    LedgerUnavailable,
    PermissionDenied,
    error_from_dict,
)

from .broker_path import VARIABLE, check_owner
from .peer import peer_of
from .users import login_of

JSON = dict[str, Any]

HUB_TOKEN = "JUPYTERHUB_API_TOKEN"
"""By which a Jupyter server that JupyterHub has started proves whose it is."""
MAX_LINE = 64 << 20
CALL_SECONDS = 60.0
CONNECT_SECONDS = 5.0
RESTART_SECONDS = 3.0
"""How long a broker that has answered before is waited for: it is being restarted."""
POLL_SECONDS = 0.05
MAX_IDLE = 8
"""Connections that are kept while nobody uses them."""


class BrokerSocket:
    """A process's connections to the host broker. Any thread may call.

    Args:
        path: the socket.
        client: what calls, and its version, for people.
        token: a token of JupyterHub that proves the user, empty for none; None for
            that of this process's environment, if there is one.
        protocol: the protocols that this side speaks.
        clock: seconds since the epoch.

    Attributes:
        silent_since: when the broker was first found not to answer; None while it does.
        greeting: the broker's first line on the newest connection; None before.
    """

    def __init__(
        self,
        path: str,
        *,
        client: str = f"jupyter_aistack {__version__}",
        token: str | None = None,
        protocol: ProtocolRange = SPOKEN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.silent_since: float | None = None
        self.greeting: BrokerGreeting | None = None
        own_token = os.environ.get(HUB_TOKEN, "") if token is None else token
        self._hello = ClientGreeting(protocol=protocol, client=client, token=own_token)
        self._clock = clock
        self._idle: deque[_Connection] = deque()
        self._pid = os.getpid()

    def call(
        self,
        verb: str,
        payload: Mapping[str, Any],
        caller: SpokenFor | None = None,
        *,
        seconds: float = CALL_SECONDS,
    ) -> JSON:
        """The answer to one call.

        Args:
            caller: for whom it is, where a Jupyter server speaks for a kernel.
            seconds: how long the answer is waited for.

        Raises:
            AIStackError: as the broker says.
            LedgerUnavailable: it does not answer; says since when.
            PermissionDenied: the socket is another user's.
        """
        message: JSON = {"verb": verb, "payload": dict(payload)}
        if caller is not None:
            message["caller"] = caller.to_dict()
        line = json.dumps(message).encode() + b"\n"
        try:
            answer = self._exchange(
                line, seconds, is_repeatable=_is_repeatable(message)
            )
        except (OSError, ValueError) as error:
            raise self._unavailable(error) from error
        self.silent_since = None
        if "result" not in answer:
            raise error_from_dict(answer.get("error") or {})
        result: JSON = answer["result"]
        return result

    def _exchange(self, line: bytes, seconds: float, *, is_repeatable: bool) -> JSON:
        try:
            return self._exchange_once(line, seconds)
        except TimeoutError:
            raise
        except (OSError, ValueError):
            # It has ended in the middle of the call.
            if not is_repeatable or not self._is_known:
                raise
        self._drop_idle()
        return self._exchange_once(line, seconds)

    def _exchange_once(self, line: bytes, seconds: float) -> JSON:
        connection = self._take()
        try:
            answer = connection.exchange(line, seconds)
        except BaseException:
            # What comes on it later would be taken for the answer to another call.
            connection.close()
            raise
        self.greeting = connection.greeting
        self._put_back(connection)
        return answer

    @property
    def _is_known(self) -> bool:
        """Whether the broker has answered before and is not known to be silent."""
        return self.greeting is not None and self.silent_since is None

    # -- connections -------------------------------------------------------------------

    def _take(self) -> _Connection:
        if self._pid != os.getpid():
            # The other ends of these know them as the process this was forked from.
            self._idle = deque()
            self._pid = os.getpid()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect()
            if connection.is_open():
                return connection
            connection.close()

    def _put_back(self, connection: _Connection) -> None:
        if len(self._idle) >= MAX_IDLE or self._pid != os.getpid():
            connection.close()
        else:
            self._idle.append(connection)

    def _connect(self) -> _Connection:
        """A new connection; where the broker has answered before, it is given the time
        of a restart.
        """
        deadline = time.monotonic() + (RESTART_SECONDS if self._is_known else 0.0)
        while True:
            try:
                return _Connection(self.path, self._hello)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() >= deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def _drop_idle(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def close(self) -> None:
        """Close what is open. A later call opens it again."""
        if self._pid == os.getpid():
            self._drop_idle()

    def _unavailable(self, error: Exception) -> LedgerUnavailable:
        if self.silent_since is None:
            self.silent_since = self._clock()
        since = time.strftime("%H:%M", time.localtime(self.silent_since))
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return LedgerUnavailable(
            f"the host broker does not answer since {since} ({self.path}: {why}); "
            "what runs goes on, and it is asked again with the next call",
            field=VARIABLE,
            since=self.silent_since,
        )


class _Connection:
    """One connection; its first line goes out together with the first call.

    Args:
        path: the socket.
        hello: the first line of this side.

    Raises:
        OSError: nobody listens there.
        PermissionDenied: another user does.
    """

    def __init__(self, path: str, hello: ClientGreeting) -> None:
        owner = check_owner(path)
        self.greeting: BrokerGreeting | None = None
        self._hello = hello
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(CONNECT_SECONDS)
            self._socket.connect(path)
            self._check_peer(path, owner)
        except BaseException:
            self._socket.close()
            raise
        self._answers = self._socket.makefile("rb")

    def _check_peer(self, path: str, owner: int) -> None:
        """Refuse a socket that was put in place after its owner was looked at."""
        listener = peer_of(self._socket).uid
        if listener not in (owner, 0):
            raise PermissionDenied(
                f"{path} is answered by {login_of(listener)}, and belongs to "
                f"{login_of(owner)}"
            )

    def exchange(self, line: bytes, seconds: float) -> JSON:
        """The answer to a line."""
        self._socket.settimeout(seconds)
        if self.greeting is not None:
            self._socket.sendall(line)
            return self._read()
        self._socket.sendall(json.dumps(self._hello.to_dict()).encode() + b"\n" + line)
        self.greeting = self._read_greeting()
        return self._read()

    def _read_greeting(self) -> BrokerGreeting:
        first = self._read()
        if "error" in first:
            raise error_from_dict(first["error"])
        greeting = read_broker_greeting(first)
        spoken = self._hello.protocol
        if not spoken.oldest <= greeting.protocol <= spoken.newest:
            raise InvalidRequest(
                f"protocol: the host broker (jupyter_aistack {greeting.broker}) answers "
                f"with protocol {greeting.protocol}, and {self._hello.client} speaks "
                f"{spoken}; upgrade the older of the two",
                field="protocol",
            )
        return greeting

    def _read(self) -> JSON:
        line = self._answers.readline(MAX_LINE)
        if not line:
            raise ConnectionResetError("it has closed the connection")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("it does not speak the protocol of a broker")
        return answer

    def is_open(self) -> bool:
        """Whether the other end has neither closed it nor said anything unasked."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


def _is_repeatable(message: Mapping[str, Any]) -> bool:
    """Whether a call that is made twice does what it does once."""
    if message["verb"] == "request":
        return bool(message["payload"].get("idempotency_key"))
    return message["verb"] in REPEATABLE_VERBS
