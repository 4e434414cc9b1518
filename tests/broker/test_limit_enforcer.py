"""What holds the leases follows their limits: lowered before others are granted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.enforcement.limit_effect import LimitEffect
from jupyter_aistack.core.model.condition import ConditionKind
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.scripted import Lists

Observer = Callable[[], int]


class Adjustable(Lists):
    """A GPU whose limits can be changed; notes each change, and how many grants were
    written down by then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.effect = LimitEffect.NOW
        self.refusal = ""
        self.changes: list[tuple[str, str, int]] = []
        self.granted: Observer = lambda: 0

    def adjust(
        self, lease: Lease, devices: Mapping[str, Device], pids: Collection[int]
    ) -> LimitEffect:
        if self.refusal:
            raise ProviderError(self.refusal)
        share = str(lease.effective_slices[0].fraction)
        self.changes.append((lease.holder.id, share, self.granted()))
        return self.effect


@pytest.fixture
def provider() -> Adjustable:
    return Adjustable()


@pytest.fixture
def broker(provider: Adjustable) -> Broker:
    broker = broker_on(MemoryLedger(), provider)
    provider.granted = lambda: sum(
        event.kind is EventKind.LEASE_GRANTED for event in broker.events()
    )
    return broker


def broker_on(ledger: MemoryLedger, provider: Adjustable) -> Broker:
    return Broker(
        ledger,
        [provider],
        host="testbox",
        clock=ManualClock(),
        ttl_seconds=1e6,
        is_alive=lambda pid, since: True,
    )


def in_use(broker: Broker, spec: str, name: str, up_to: str = "") -> Lease:
    request = broker.submit(spec, holder(name), up_to=up_to)
    lease = broker.lease(request.lease_id)
    broker.prepare(lease)
    return broker.activate(lease.id, lease.token, verified=True)


def pending(broker: Broker, lease: Lease) -> bool:
    known = broker.lease(lease.id)
    return known.condition(ConditionKind.LIMIT_PENDING) is not None


def test_a_limit_is_lowered_before_the_grant_and_raised_after_the_end(
    broker: Broker, provider: Adjustable
) -> None:
    in_use(broker, "1/4", "first", "1/1")
    assert provider.changes == []  # it was made ready with all of it

    second = in_use(broker, "1/2", "second")
    # Only the first was granted when it was lowered.
    assert provider.changes == [("first", "1/2", 1)]
    broker.release(second.id, second.token)
    assert provider.changes[1:] == [("first", "1", 2)]
    broker.cycle()
    assert len(provider.changes) == 2


def test_of_two_the_one_that_falls_is_first(
    broker: Broker, provider: Adjustable
) -> None:
    low = in_use(broker, "1/8", "low", "1/1")
    whole = in_use(broker, "1/2", "whole")
    provider.changes.clear()
    # What leaves is divided among two, one of which has just come.
    broker.release(whole.id, whole.token)
    in_use(broker, "1/8", "other", "1/1")
    assert provider.changes == [("low", "1", 2), ("low", "1/2", 2)]
    assert str(broker.lease(low.id).limits[0].fraction) == "1/2"


def test_a_limit_that_takes_effect_later_is_said_until_the_next_start(
    broker: Broker, provider: Adjustable
) -> None:
    provider.effect = LimitEffect.NEXT_START
    first = in_use(broker, "1/4", "first", "1/1")
    assert not pending(broker, first)
    in_use(broker, "1/2", "second")
    assert pending(broker, first)
    broker.prepare(broker.lease(first.id))  # its kernel is started again
    assert not pending(broker, first)


def test_what_fails_is_tried_again_and_stops_no_grant(
    broker: Broker, provider: Adjustable
) -> None:
    first = in_use(broker, "1/4", "first", "1/1")
    provider.refusal = "the daemon does not answer"
    second = in_use(broker, "1/2", "second")
    assert second.is_live
    assert provider.changes == []
    provider.refusal = ""
    broker.cycle()
    assert provider.changes == [("first", "1/2", 2)]
    assert not pending(broker, first)


def test_what_is_unknown_is_tried_again(broker: Broker, provider: Adjustable) -> None:
    in_use(broker, "1/4", "first", "1/1")
    provider.effect = LimitEffect.UNKNOWN
    in_use(broker, "1/2", "second")
    provider.changes.clear()
    broker.cycle()
    provider.effect = LimitEffect.NOW
    broker.cycle()
    broker.cycle()
    assert len(provider.changes) == 2


def test_another_broker_applies_what_it_can_and_says_nothing_of_starts(
    provider: Adjustable,
) -> None:
    ledger = MemoryLedger()
    own = broker_on(ledger, provider)
    first = in_use(own, "1/4", "first", "1/1")
    other_provider = Adjustable()
    other_provider.effect = LimitEffect.NEXT_START
    other = broker_on(ledger, other_provider)
    in_use(other, "1/2", "second")
    assert [change[:2] for change in other_provider.changes] == [("first", "1/2")]
    assert not pending(other, first)
    # The broker that has made it ready follows in its next cycle.
    provider.effect = LimitEffect.NEXT_START
    own.cycle()
    assert [change[:2] for change in provider.changes] == [("first", "1/2")]
    assert pending(own, first)


def test_a_lease_that_is_not_in_use_yet_is_made_ready_with_its_limits(
    broker: Broker, provider: Adjustable
) -> None:
    request = broker.submit("1/4", holder("first"), up_to="1/1")
    in_use(broker, "1/2", "second")
    assert provider.changes == []
    lease = broker.lease(request.lease_id)
    broker.prepare(lease)
    broker.activate(lease.id, lease.token, verified=True)
    broker.cycle()
    assert provider.changes == []
