from __future__ import annotations

import json
from typing import Any

import pytest

from jupyter_aistack.core.wire.protocol import (
    BrokerGreeting,
    ClientGreeting,
    ProtocolRange,
    SpokenFor,
    choose_protocol,
    read_broker_greeting,
    read_call,
    read_client_greeting,
)
from jupyter_aistack.exceptions import InvalidRequest


def spoken(oldest: int, newest: int) -> ProtocolRange:
    return ProtocolRange(oldest=oldest, newest=newest)


def greeting(oldest: int, newest: int) -> ClientGreeting:
    return ClientGreeting(protocol=spoken(oldest, newest), client="jupyter_aistack 9")


@pytest.mark.parametrize(
    ("client", "broker", "chosen"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 3), (2, 5), 3),
        ((2, 5), (1, 3), 3),
        ((3, 3), (1, 9), 3),
    ],
)
def test_the_newest_protocol_that_both_speak_is_chosen(
    client: tuple[int, int], broker: tuple[int, int], chosen: int
) -> None:
    offered = greeting(*client)
    assert choose_protocol(offered, broker="1", spoken=spoken(*broker)) == chosen


@pytest.mark.parametrize(
    ("client", "broker", "older"),
    [((1, 2), (3, 4), "upgrade the client"), ((5, 6), (3, 4), "upgrade the broker")],
)
def test_sides_without_a_common_protocol_are_told_which_to_upgrade(
    client: tuple[int, int], broker: tuple[int, int], older: str
) -> None:
    with pytest.raises(InvalidRequest, match=rf"jupyter_aistack 9 speaks .*{older}"):
        choose_protocol(greeting(*client), broker="1", spoken=spoken(*broker))


@pytest.mark.parametrize(
    "protocol",
    [None, 1, [], [1], [1, 2, 3], ["1", "2"], [True, True], [0, 1], [2, 1], {"1": 2}],
)
def test_a_line_without_protocols_is_no_first_line(protocol: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^protocol: "):
        read_client_greeting({"protocol": protocol, "client": "x"})


def test_first_lines_survive_the_wire_and_what_later_versions_add() -> None:
    client = ClientGreeting(client="x", token="secret")
    sent = json.loads(json.dumps({**client.to_dict(), "later": 1}))
    assert read_client_greeting(sent) == client
    assert "token" not in ClientGreeting(client="x").to_dict()
    broker = BrokerGreeting(protocol=1, broker="0.1", host="box", pid=7)
    assert read_broker_greeting({**broker.to_dict(), "later": 1}) == broker


def test_a_call_says_for_whom() -> None:
    server_says = SpokenFor(
        pid=7, kernel_id="k", kernel_pid=8, parent="p", label="a.ipynb"
    )
    message = {"verb": "mine", "payload": {"x": 1}, "caller": server_says.to_dict()}
    call = read_call(json.loads(json.dumps(message)))
    assert (call.verb, call.payload, call.caller) == ("mine", {"x": 1}, server_says)
    assert read_call({"verb": "mine"}).caller is None


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ({"verb": "mine", "user": "root"}, "user"),
        ({"verb": "mine", "caller": []}, "caller"),
        ({"verb": "mine", "caller": {"uid": 0}}, "uid"),
        ({"verb": "mine", "caller": {"pid": "1"}}, "pid"),
        ({"verb": "mine", "caller": {"kernel_pid": 0}}, "kernel_pid"),
        ({"verb": "mine", "caller": {"label": 3}}, "label"),
    ],
)
def test_a_call_that_says_what_it_may_not_is_refused(
    message: dict[str, Any], word: str
) -> None:
    with pytest.raises(InvalidRequest, match=word):
        read_call(message)
