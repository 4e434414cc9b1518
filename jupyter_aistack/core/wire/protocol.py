"""How a client and the broker of a host speak: the first line of each side, and calls.

Lines are JSON objects, each ended by a newline. The client begins with the protocols
that it speaks, and the broker answers with the newest that both know; every line after
that is a call, answered in order by ``{"result"}`` or ``{"error"}``. A client may send
its first calls together with its first line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_aistack.exceptions import InvalidRequest

from .json_body import check_fields
from .values import integer_field, text_field

JSON = dict[str, Any]

CALL_FIELDS = frozenset({"verb", "payload", "caller"})
"""What a call may hold."""
SPOKEN_FOR_FIELDS = frozenset({"pid", "kernel_id", "kernel_pid", "parent", "label"})
"""What a Jupyter server may say of the process that it speaks for."""
MAX_TEXT = 512
"""Characters of a name, an id or a version that the other side says."""
MAX_TOKEN = 4096
"""Characters of a token."""


@dataclass(frozen=True, kw_only=True)
class ProtocolRange:
    """The protocols that a side speaks.

    Attributes:
        oldest: the first of them.
        newest: the last of them.
    """

    oldest: int
    newest: int

    def newest_common(self, other: ProtocolRange) -> int | None:
        """The newest protocol that both sides speak; None for none."""
        newest = min(self.newest, other.newest)
        return newest if newest >= max(self.oldest, other.oldest) else None

    def __str__(self) -> str:
        if self.oldest == self.newest:
            return f"protocol {self.oldest}"
        return f"protocols {self.oldest} to {self.newest}"


SPOKEN = ProtocolRange(oldest=1, newest=1)
"""What this version speaks, as client and as broker."""


@dataclass(frozen=True, kw_only=True)
class ClientGreeting:
    """The first line of a client.

    Attributes:
        protocol: what it speaks.
        client: its name and version, for people.
        token: a token of JupyterHub that proves its user; empty for none.
    """

    protocol: ProtocolRange = SPOKEN
    client: str
    token: str = ""

    def to_dict(self) -> JSON:
        """The line, as an object."""
        offered = [self.protocol.oldest, self.protocol.newest]
        message: JSON = {"protocol": offered, "client": self.client}
        return {**message, "token": self.token} if self.token else message


@dataclass(frozen=True, kw_only=True)
class BrokerGreeting:
    """The first line of a broker.

    Attributes:
        protocol: what is spoken from now on.
        broker: the broker's version.
        host: the machine's name, for people.
        pid: the broker's process.
    """

    protocol: int
    broker: str
    host: str
    pid: int

    def to_dict(self) -> JSON:
        """The line, as an object."""
        return {
            "protocol": self.protocol,
            "broker": self.broker,
            "host": self.host,
            "pid": self.pid,
        }


@dataclass(frozen=True, kw_only=True)
class SpokenFor:
    """The process that a Jupyter server speaks for, as that server says.

    Attributes:
        pid: the process that asks; None for a browser.
        kernel_id: the kernel that it is, or that a browser acts for; empty for none.
        kernel_pid: that kernel's process, as it was launched.
        parent: the kernel that has started it; empty for none.
        label: the notebook's path, for people.
    """

    pid: int | None = None
    kernel_id: str = ""
    kernel_pid: int | None = None
    parent: str = ""
    label: str = ""

    def to_dict(self) -> JSON:
        """What goes under ``caller`` of a call."""
        return {
            "pid": self.pid,
            "kernel_id": self.kernel_id,
            "kernel_pid": self.kernel_pid,
            "parent": self.parent,
            "label": self.label,
        }


@dataclass(frozen=True, kw_only=True)
class Call:
    """A line after the first.

    Attributes:
        verb: what is asked.
        payload: with what; not checked yet.
        caller: for whom a Jupyter server asks; None where it asks for itself.
    """

    verb: str
    payload: Any
    caller: SpokenFor | None = None


def read_client_greeting(message: Mapping[str, Any]) -> ClientGreeting:
    """The first line of a client; fields that later versions add are left alone.

    Raises:
        InvalidRequest: it is no first line.
    """
    return ClientGreeting(
        protocol=_protocol_range(message.get("protocol")),
        client=text_field(message, "client", "")[:MAX_TEXT],
        token=text_field(message, "token", "")[:MAX_TOKEN],
    )


def read_broker_greeting(message: Mapping[str, Any]) -> BrokerGreeting:
    """The first line of a broker; fields that later versions add are left alone.

    Raises:
        InvalidRequest: it is no first line.
    """
    return BrokerGreeting(
        protocol=integer_field(message, "protocol"),
        broker=text_field(message, "broker", ""),
        host=text_field(message, "host", ""),
        pid=integer_field({"pid": 0, **message}, "pid"),
    )


def choose_protocol(
    greeting: ClientGreeting, *, broker: str, spoken: ProtocolRange = SPOKEN
) -> int:
    """What is spoken with a client from now on.

    Args:
        greeting: the client's first line.
        broker: this broker's version.
        spoken: what this broker speaks.

    Raises:
        InvalidRequest: the two have no protocol in common; the sentence says which of
            them is to be upgraded.
    """
    chosen = spoken.newest_common(greeting.protocol)
    if chosen is not None:
        return chosen
    is_client_older = greeting.protocol.newest < spoken.oldest
    older = "the client" if is_client_older else "the broker"
    raise InvalidRequest(
        f"protocol: {greeting.client or 'this client'} speaks {greeting.protocol}, and "
        f"the host broker (jupyter_aistack {broker}) speaks {spoken}; upgrade {older}",
        field="protocol",
    )


def read_call(message: Mapping[str, Any]) -> Call:
    """A call, its payload as it came.

    Raises:
        InvalidRequest: a field is not known, or says what it may not.
    """
    check_fields(message, CALL_FIELDS)
    caller = message.get("caller")
    return Call(
        verb=str(message.get("verb"))[:MAX_TEXT],
        payload=message.get("payload", {}),
        caller=None if caller is None else _spoken_for(caller),
    )


def _spoken_for(caller: object) -> SpokenFor:
    if not isinstance(caller, Mapping):
        raise InvalidRequest(
            f"caller: expected an object, got {caller!r:.64}", field="caller"
        )
    check_fields(caller, SPOKEN_FOR_FIELDS)
    return SpokenFor(
        pid=_pid(caller, "pid"),
        kernel_id=text_field(caller, "kernel_id", "")[:MAX_TEXT],
        kernel_pid=_pid(caller, "kernel_pid"),
        parent=text_field(caller, "parent", "")[:MAX_TEXT],
        label=text_field(caller, "label", "")[:MAX_TEXT],
    )


def _pid(caller: Mapping[str, Any], name: str) -> int | None:
    if caller.get(name) is None:
        return None
    return integer_field(caller, name, least=1)


def _protocol_range(value: object) -> ProtocolRange:
    is_pair = isinstance(value, list) and len(value) == 2
    if not isinstance(value, list) or not is_pair or not all(map(_is_number, value)):
        raise InvalidRequest(
            "protocol: the first line of a client names the oldest and the newest "
            'protocol that it speaks, e.g. {"protocol": [1, 1], "client": "..."}',
            field="protocol",
        )
    oldest, newest = value
    if not 1 <= oldest <= newest:
        raise InvalidRequest(
            f"protocol: expected two numbers from 1 up, the oldest first, got {value}",
            field="protocol",
        )
    return ProtocolRange(oldest=oldest, newest=newest)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
