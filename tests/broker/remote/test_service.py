"""A Jupyter server passes the calls of its kernels on to the host's broker."""

from __future__ import annotations

import os

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.remote.service import RemoteService
from jupyter_aistack.core.accounting.usage_report import Rates
from jupyter_aistack.exceptions import InvalidRequest, LeaseNotFound
from jupyter_aistack.system.broker_socket import BrokerSocket
from jupyter_aistack.system.users import current_user
from jupyter_aistack.testing import holder


@pytest.fixture
def service(connection: BrokerSocket) -> RemoteService:
    return RemoteService(connection)


@pytest.fixture
def caller() -> Caller:
    return Caller(
        user=current_user(),
        uid=os.getuid(),
        pid=os.getpid(),
        kernel_id="k",
        kernel_pid=os.getpid(),
        label="a.ipynb",
    )


def test_a_call_is_made_for_the_kernel_that_makes_it(
    broker: Broker, service: RemoteService, caller: Caller
) -> None:
    answer = service.call("request", {"spec": "1/2"}, caller)
    lease = broker.lease(answer["lease"]["id"])
    assert (lease.holder.id, lease.holder.label) == ("k", "a.ipynb")
    with pytest.raises(InvalidRequest, match="verb"):
        service.call("fly", {}, caller)


def test_a_lease_is_looked_up_among_the_users_own(
    broker: Broker, service: RemoteService, caller: Caller
) -> None:
    own = service.call("request", {"spec": "1/2"}, caller)["lease"]["id"]
    theirs = broker.submit("1/4", holder("k", user="bob")).lease_id
    assert service.check_lease("orders", own, caller).id == own
    with pytest.raises(LeaseNotFound):
        service.check_lease("orders", theirs, caller)


def test_figures_are_those_that_users_are_shown(
    broker: Broker, service: RemoteService, caller: Caller
) -> None:
    service.call("request", {"spec": "1"}, caller)
    service.call("request", {"spec": "1/2", "holder": {"label": "b"}}, caller)
    figures = service.figures(caller)
    assert [device.id for device in figures.inventory.devices] == [
        device.id for device in broker.inventory().devices
    ]
    assert [lease.id for lease in figures.leases] == [
        lease.id for lease in broker.leases()
    ]
    assert [queue.name for queue in figures.queues] == ["default"]
    assert len(figures.requests) == 1
    assert figures.at == broker.clock()
    assert service.charged(caller) == ([], Rates())
