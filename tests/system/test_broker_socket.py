"""Connections to the host's broker: kept, opened anew, and refused where it is not the
host's.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.core.wire.protocol import ProtocolRange, SpokenFor
from jupyter_aistack.exceptions import (
    InvalidRequest,
    LeaseNotFound,
    LedgerUnavailable,
    PermissionDenied,
)
from jupyter_aistack.system import broker_socket
from jupyter_aistack.system.broker_socket import BrokerSocket
from tests.fakes.scripted_broker import JSON, Answer, ScriptedBroker, echo

as_root = pytest.mark.skipif(os.getuid() != 0, reason="makes a socket another user's")
ANOTHER_USER = 23001


class Brokers:
    """Starts brokers at one path, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.running: ScriptedBroker | None = None

    def start(self, answer: Answer = echo, hello: JSON | None = None) -> ScriptedBroker:
        self.stop()
        self.running = ScriptedBroker(self.path, answer, hello)
        return self.running

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()
            self.running = None


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    brokers = Brokers(tmp_path / "broker.sock")
    yield brokers
    brokers.stop()


@pytest.fixture
def client(brokers: Brokers, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerSocket]:
    monkeypatch.setattr(broker_socket, "RESTART_SECONDS", 0.0)
    client = BrokerSocket(str(brokers.path), clock=lambda: 0.0)
    yield client
    client.close()


def test_first_call_goes_out_with_the_first_line_and_the_connection_stays(
    brokers: Brokers, client: BrokerSocket
) -> None:
    broker = brokers.start()
    kernel = SpokenFor(pid=1, kernel_id="k")
    assert client.call("host", {"a": 1}, kernel) == {"verb": "host", "a": 1}
    assert client.call("leases", {}) == {"verb": "leases"}
    first, host, leases = broker.lines
    assert first["protocol"] == [1, 1]
    assert host["caller"] == kernel.to_dict()
    assert "caller" not in leases
    assert broker.connections == 1


def test_what_the_broker_refuses_is_raised_as_there(
    brokers: Brokers, client: BrokerSocket
) -> None:
    error = LeaseNotFound("there is no such lease", lease_id="l-1")
    brokers.start(lambda call: {"error": error.as_dict()})
    with pytest.raises(LeaseNotFound, match="no such lease") as raised:
        client.call("release", {"lease_id": "l-1"})
    assert raised.value.facts == {"lease_id": "l-1"}
    assert client.silent_since is None


def test_an_older_broker_says_that_it_is_older(brokers: Brokers) -> None:
    """A broker of a later protocol answers with a number that is not known here."""
    brokers.start(hello={"protocol": 9, "broker": "9.0", "host": "box", "pid": 7})
    newest = ProtocolRange(oldest=1, newest=2)
    client = BrokerSocket(str(brokers.path), protocol=newest, client="lab 0.1")
    with pytest.raises(InvalidRequest, match=r"9\.0.*protocol 9.*protocols 1 to 2"):
        client.call("host", {})


def test_a_broker_without_a_common_protocol_is_quoted(
    brokers: Brokers, client: BrokerSocket
) -> None:
    error = InvalidRequest("protocol: upgrade the client", field="protocol")
    brokers.start(hello={"error": error.as_dict()})
    with pytest.raises(InvalidRequest, match="upgrade the client"):
        client.call("host", {})


def test_a_restarted_broker_is_connected_to_anew(
    brokers: Brokers, client: BrokerSocket
) -> None:
    brokers.start()
    client.call("host", {})
    brokers.start()
    assert client.call("host", {})["verb"] == "host"


def test_a_restart_is_waited_for(
    brokers: Brokers, client: BrokerSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_socket, "RESTART_SECONDS", 60.0)
    brokers.start()
    client.call("host", {})
    brokers.stop()
    waits = threading.Event()

    def begin_again(seconds: float) -> None:
        if not waits.is_set():
            waits.set()
            brokers.start()

    monkeypatch.setattr(broker_socket.time, "sleep", begin_again)
    assert client.call("host", {})["verb"] == "host"
    assert waits.is_set()


class Lost:
    """Loses the answer to the first call of each verb that it is told to lose."""

    def __init__(self, *verbs: str) -> None:
        self.lost = set(verbs)
        self.calls: list[str] = []

    def __call__(self, call: JSON) -> JSON | None:
        verb = call["verb"]
        self.calls.append(verb)
        if verb in self.lost:
            self.lost.discard(verb)
            return None
        return echo(call)


@pytest.mark.parametrize(
    ("verb", "payload", "times"),
    [
        ("release", {}, 2),
        ("request", {"idempotency_key": "k"}, 2),
        ("request", {}, 1),
        ("extend", {"seconds": 1}, 1),
    ],
)
def test_a_call_whose_answer_is_lost_is_made_again_where_twice_is_once(
    brokers: Brokers,
    client: BrokerSocket,
    verb: str,
    payload: dict[str, Any],
    times: int,
) -> None:
    answer = Lost(verb)
    brokers.start(answer)
    client.call("host", {})
    if times > 1:
        assert client.call(verb, payload)["verb"] == verb
    else:
        with pytest.raises(LedgerUnavailable, match="closed the connection"):
            client.call(verb, payload)
    assert answer.calls == ["host", *[verb] * times]


def test_a_silent_broker_is_said_to_be_silent_since_the_first_time(
    brokers: Brokers,
) -> None:
    first = 10 * 3600 + 42 * 60.0
    since = time.strftime("%H:%M", time.localtime(first))
    moments = iter([first, first + 3600])
    client = BrokerSocket(str(brokers.path), clock=lambda: next(moments))
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match=f"not answer since {since} ") as no:
            client.call("host", {})
        assert no.value.facts["since"] == first
    brokers.start()
    client.call("host", {})
    assert client.silent_since is None


def test_an_answer_that_comes_too_late_is_nobodys(
    brokers: Brokers, client: BrokerSocket
) -> None:
    answered = threading.Event()

    def answer(call: JSON) -> JSON:
        if call["verb"] == "slow":
            answered.wait(30)
        return echo(call)

    broker = brokers.start(answer)
    with pytest.raises(LedgerUnavailable):
        client.call("slow", {}, seconds=0.01)
    answered.set()
    assert client.call("host", {})["verb"] == "host"
    assert broker.connections == 2


def test_a_fork_connects_by_itself(brokers: Brokers, client: BrokerSocket) -> None:
    """The broker knows who calls by who has connected."""
    broker = brokers.start()
    client.call("host", {})
    pid = os.fork()
    if not pid:
        ok = client.call("host", {})["verb"] == "host"
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    client.call("host", {})
    assert broker.connections == 2


# -- whose socket it is --------------------------------------------------------------------


@as_root
def test_a_socket_that_is_another_users_is_refused_by_name(
    brokers: Brokers, client: BrokerSocket
) -> None:
    brokers.start()
    os.chown(brokers.path, ANOTHER_USER, ANOTHER_USER)
    with pytest.raises(PermissionDenied, match=f"belongs to uid-{ANOTHER_USER}"):
        client.call("host", {})


def test_what_is_no_socket_is_refused(brokers: Brokers, client: BrokerSocket) -> None:
    brokers.path.touch()
    with pytest.raises(PermissionDenied, match="is no socket"):
        client.call("host", {})
