"""Leases with a ceiling on a broker: what they may use follows who else is there."""

from __future__ import annotations

from fractions import Fraction

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.testing import holder, simulated_broker


def held(broker: Broker, spec: str, name: str, up_to: str = "") -> Lease:
    request = broker.submit(spec, holder(name), up_to=up_to)
    assert request.state is RequestState.GRANTED
    return broker.lease(request.lease_id)


def now(broker: Broker, lease: Lease) -> str:
    """The share that a lease may use now."""
    (slice_,) = broker.lease(lease.id).effective_slices
    return str(slice_.fraction)


def test_a_lease_begins_with_what_is_free_and_yields_to_those_who_come() -> None:
    broker = simulated_broker()
    first = held(broker, "1/4", "k-1", "1/1")
    assert now(broker, first) == "1"
    assert broker.lease(first.id).slices[0].fraction == Fraction(1, 4)

    # Granted at once: a ceiling is in nobody's way.
    second = held(broker, "1/2", "k-2")
    assert now(broker, first) == "1/2"
    third = held(broker, "1/4", "k-3", "1/1")
    assert (now(broker, first), now(broker, third)) == ("1/4", "1/4")

    broker.release(second.id, second.token)
    assert (now(broker, first), now(broker, third)) == ("1/2", "1/2")
    broker.release(third.id, third.token)
    assert now(broker, first) == "1"


def test_a_host_of_one_device_gives_memory_and_share_alike() -> None:
    broker = simulated_broker()
    lease = held(broker, "20GiB", "k-1", "3/4")
    assert lease.effective_slices[0].memory_bytes == 60 * GIB
    assert lease.limits[0].memory_bytes == 60 * GIB


def test_a_ceiling_that_no_device_has_above_the_guarantee_is_refused() -> None:
    broker = simulated_broker()
    with pytest.raises(InvalidRequest) as caught:
        broker.submit("40GiB", holder("k-1"), up_to="1/4")
    assert caught.value.message == (
        "up_to: 1/4 of a device is less than 40GiB guarantees (1/2); leave it out, or "
        "ask for a higher ceiling"
    )
    assert caught.value.facts["field"] == "up_to"
    assert broker.waiting() == ()


def test_a_request_that_waits_keeps_its_ceiling() -> None:
    broker = simulated_broker()
    first = held(broker, "1", "k-1")
    waiting = broker.submit("1/4", holder("k-2"), up_to="1/2")
    assert waiting.state is RequestState.QUEUED
    broker.release(first.id, first.token)
    lease = broker.lease(broker.request(waiting.id).lease_id)
    assert lease.up_to == Fraction(1, 2)
    assert now(broker, lease) == "1/2"
