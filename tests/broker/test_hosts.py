"""Brokers of two hosts on one ledger: what each tells of itself, and what counts over
both.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.hosts import Hosts
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.host import HostIdentity
from jupyter_aistack.core.model.policy import Policy, UserLimits
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.exceptions import QuotaExceeded
from jupyter_aistack.hostbroker.maintenance import keep
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.testing import ManualClock, holder

ANN = Caller(user="ann", uid=1000, pid=1)
NEAR = HostIdentity(id="boot-near", name="near")
FAR = HostIdentity(id="boot-far", name="far")


class Pair:
    """Two hosts with a GPU each that share a ledger."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.clock = ManualClock()
        self.ledger = MemoryLedger()
        self.near = self._broker(NEAR, policy)
        self.far = self._broker(FAR, policy)

    def _broker(self, host: HostIdentity, policy: Policy | None) -> Broker:
        return Broker(
            self.ledger,
            [SimulatedProvider("1xH100-80GB")],
            host=host,
            policy=policy,
            clock=self.clock,
            is_alive=lambda pid, since: True,
        )

    def maintain(self) -> None:
        for broker in (self.near, self.far):
            broker.maintain()


def at(host: HostIdentity, name: str, **fields: object):  # type: ignore[no-untyped-def]
    return holder(name, host=host.id, **fields)


def test_each_host_shows_all_hosts_and_what_is_free_there() -> None:
    pair = Pair()
    pair.far.submit("1/4", at(FAR, "a"))
    pair.far.submit("1", at(FAR, "b", user="bob"))
    pair.maintain()
    service = Service(pair.near, show_names=False)
    near, far = service.call("hosts", {}, ANN)["hosts"]
    assert (near["name"], near["is_here"], near["is_heard"]) == ("near", True, True)
    assert (far["name"], far["is_here"], far["is_heard"]) == ("far", False, True)
    gpu = next(device for device in far["devices"] if device["kind"] == "gpu")
    assert (gpu["name"], gpu["free_fraction"]) == (
        "NVIDIA H100-80GB (simulated)",
        "3/4",
    )
    assert [lease["holder"]["label"] for lease in far["leases"]] == ["a.ipynb"]
    assert [request["holder"]["user"] for request in far["queue"]] == ["someone"]
    pair.clock.advance(20)
    pair.maintain()
    assert service.call("host", {}, ANN)["other_hosts"] == 1


def test_what_is_free_on_a_host_that_was_not_heard_of_is_not_known() -> None:
    pair = Pair()
    pair.maintain()
    seen_at = pair.clock()
    pair.clock.advance(59)
    pair.near.maintain()
    assert Hosts(pair.near.host_state).overviews()[1].is_heard
    pair.clock.advance(1)
    _, far = Service(pair.near).call("hosts", {}, ANN)["hosts"]
    assert (far["is_heard"], far["seen_at"]) == (False, seen_at)
    assert {device["free_fraction"] for device in far["devices"]} == {None}
    pair.far.maintain()
    assert Hosts(pair.near.host_state).overviews()[1].is_heard


def test_a_host_that_never_told_anything_is_shown_by_what_it_holds() -> None:
    pair = Pair()
    pair.far.submit("1/4", at(FAR, "a", host_name="far"))
    _, far = Hosts(pair.near.host_state).overviews()
    assert (far.name, far.seen_at, far.is_heard, far.devices) == (
        "far",
        None,
        False,
        (),
    )
    assert len(far.leases) == 1


def test_what_is_granted_on_one_host_counts_against_the_limit_on_the_other() -> None:
    limits = {"*": UserLimits(slices=1, devices=Fraction(1, 2), queued=1)}
    pair = Pair(Policy(limits=limits))
    first = pair.near.submit("1/4", at(NEAR, "a"))
    waiting = pair.far.submit("1/4", at(FAR, "b"))
    assert waiting.state is RequestState.QUEUED
    with pytest.raises(QuotaExceeded, match="ann has 1 requests waiting"):
        pair.near.submit("1/4", at(NEAR, "c"))
    (forecast,) = pair.far.waiting()
    assert forecast.reason == "ann holds 1 of the 1 slices a user may hold at once"

    lease = pair.near.lease(first.lease_id)
    pair.near.release(lease.id, lease.token)
    pair.far.maintain()
    assert pair.far.request(waiting.id).state is RequestState.GRANTED


class CountingProvider(SimulatedProvider):
    """Counts how often it is asked."""

    asked = 0

    def discover(self, host: str) -> tuple[Device, ...]:
        self.asked += 1
        return super().discover(host)


def test_an_idle_host_tells_that_it_is_there_and_asks_no_driver() -> None:
    clock = ManualClock()
    ledger = MemoryLedger()
    provider = CountingProvider("1xH100-80GB")
    broker = Broker(ledger, [provider], host=NEAR, clock=clock)
    keep(broker)
    (first,) = ledger.host_reports()
    asked = provider.asked
    clock.advance(19)
    keep(broker)
    assert ledger.host_reports() == (first,)
    clock.advance(1)
    keep(broker)
    (second,) = ledger.host_reports()
    assert (second.seen_at, second.devices) == (clock(), first.devices)
    assert provider.asked == asked
