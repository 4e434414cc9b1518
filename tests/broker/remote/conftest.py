"""A broker, and the ways to it: in this process, and over a socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.remote.embedded import EmbeddedBroker
from jupyter_aistack.broker.remote.port import KernelBroker
from jupyter_aistack.broker.remote.remote import RemoteBroker
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.broker_socket import BrokerSocket
from jupyter_aistack.system.users import current_user
from jupyter_aistack.testing import simulated_broker
from tests.fakes.scripted_broker import JSON, ScriptedBroker


@pytest.fixture
def broker() -> Broker:
    return simulated_broker()


@pytest.fixture
def connection(broker: Broker, tmp_path: Path) -> Iterator[BrokerSocket]:
    """To that broker, which takes this process for a Jupyter server."""
    service = Service(broker)

    def answer(call: JSON) -> JSON:
        own = {"user": current_user(), "uid": os.getuid(), "pid": os.getpid()}
        caller = Caller(**{**own, **call.get("caller", {})})
        try:
            return {"result": service.call(call["verb"], call["payload"], caller)}
        except AIStackError as error:
            return {"error": error.as_dict()}

    server = ScriptedBroker(tmp_path / "broker.sock", answer)
    connection = BrokerSocket(str(server.path))
    yield connection
    connection.close()
    server.stop()


@pytest.fixture(params=["embedded", "remote"])
def kernels(
    request: pytest.FixtureRequest, broker: Broker, connection: BrokerSocket
) -> KernelBroker:
    """What those who start kernels use."""
    if request.param == "embedded":
        return EmbeddedBroker(broker)
    return RemoteBroker(connection)
