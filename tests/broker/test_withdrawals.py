"""Whatever fails while somebody asks: nothing is left that nobody knows of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.condition import ConditionKind
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.lease import Lease, LeaseState, Outcome
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.exceptions import (
    LeaseLost,
    LedgerUnavailable,
    PrepareFailed,
    ProviderError,
    Refused,
    Unsatisfiable,
)
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.testing import ManualClock, holder
from tests.fakes.ledgers import FailingLedger

ANN = Caller(user="ann", uid=1000, pid=7)
BOB = Caller(user="bob", uid=1001, pid=8)
MOST = 30
"""More transactions than any verb here has."""


class Interrupted(SimulatedProvider):
    """Simulated devices whose preparation may be broken off."""

    error: BaseException | None = None
    meanwhile: Callable[[], None] | None = None
    """What happens while it prepares."""

    def __init__(self, profile: str) -> None:
        super().__init__(profile)
        self.closed: list[str] = []

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        if self.meanwhile is not None:
            self.meanwhile()
        if self.error is not None:
            raise self.error
        return super().prepare(lease, devices)

    def unprepare(self, lease: Lease) -> None:
        self.closed.append(lease.id)
        super().unprepare(lease)


@pytest.fixture
def ledger() -> FailingLedger:
    return FailingLedger()


@pytest.fixture
def provider() -> Interrupted:
    return Interrupted("1xH100-80GB")


@pytest.fixture
def broker(ledger: FailingLedger, provider: Interrupted) -> Iterator[Broker]:
    broker = Broker(
        ledger,
        [provider],
        host="testbox",
        clock=ManualClock(),
        is_alive=lambda pid, since: True,
    )
    yield broker
    broker.close()


def service_of(broker: Broker) -> Service:
    return Service(broker, groups=lambda user: frozenset())


def assert_nothing_is_left(broker: Broker) -> None:
    broker.cycle()
    assert broker.leases() == broker.queue() == ()


def failures() -> list[tuple[bool, bool]]:
    return [(is_kept, stays) for is_kept in (False, True) for stays in (False, True)]


def run_failing_everywhere(
    error: Any, is_kept: bool, stays_down: bool, payload: dict[str, Any]
) -> int:
    """Ask, and have each transaction fail in turn; how many there were."""
    for number in range(1, MOST):
        ledger = FailingLedger()
        broker = Broker(
            ledger,
            [SimulatedProvider("1xH100-80GB")],
            host="testbox",
            clock=ManualClock(),
            is_alive=lambda pid, since: True,
        )
        service = service_of(broker)
        ledger.count = 0
        ledger.fail_at = number
        ledger.is_kept = is_kept
        ledger.stays_down = stays_down
        ledger.error = error
        try:
            service.call("request", payload, ANN)
        except (LedgerUnavailable, KeyboardInterrupt):
            ledger.is_down = False
            assert_nothing_is_left(broker)
        else:
            has_failed = ledger.count >= number
            # A part that may fail unnoticed, such as advice.
            if not has_failed:
                return number - 1
        broker.close()
    raise AssertionError("more transactions than expected")


@pytest.mark.parametrize(("is_kept", "stays_down"), failures())
@pytest.mark.parametrize(
    "error", [lambda: LedgerUnavailable("lost"), KeyboardInterrupt]
)
def test_a_request_that_fails_anywhere_leaves_nothing_behind(
    error: Any, is_kept: bool, stays_down: bool
) -> None:
    payload = {"spec": "1/4", "idempotency_key": "k"}
    assert run_failing_everywhere(error, is_kept, stays_down, payload) > 5


@pytest.mark.parametrize("is_kept", [False, True])
def test_what_is_asked_for_again_after_any_failure_is_given_once_and_kept(
    is_kept: bool,
) -> None:
    payload = {"spec": "1/4", "idempotency_key": "k"}
    for number in range(1, MOST):
        ledger = FailingLedger()
        broker = Broker(
            ledger,
            [SimulatedProvider("1xH100-80GB")],
            host="testbox",
            clock=ManualClock(),
            is_alive=lambda pid, since: True,
        )
        service = service_of(broker)
        ledger.count = 0
        ledger.fail_at = number
        ledger.is_kept = is_kept
        ledger.stays_down = True
        with contextlib.suppress(LedgerUnavailable):
            service.call("request", payload, ANN)
        is_over = ledger.count < number
        ledger.is_down = False
        ledger.fail_at = None
        answer = service.call("request", payload, ANN)
        broker.maintain()
        asked = {"request_id": answer["request"]["id"]}
        lease = service.call("wait_for", asked, ANN)["lease"]
        assert lease["id"] == (answer["lease"] or lease)["id"]
        assert [each.id for each in broker.leases()] == [lease["id"]]
        assert broker.queue() == ()
        broker.close()
        if is_over:
            return
    raise AssertionError("more transactions than expected")


@pytest.mark.parametrize("is_kept", [False, True])
def test_who_asks_again_after_a_failure_what_became_of_a_request_keeps_it(
    is_kept: bool,
) -> None:
    for number in range(1, MOST):
        ledger = FailingLedger()
        broker = Broker(
            ledger,
            [SimulatedProvider("1xH100-80GB")],
            host="testbox",
            clock=ManualClock(),
            is_alive=lambda pid, since: True,
        )
        service = service_of(broker)
        held = service.call("request", {"spec": "1"}, BOB)["lease"]
        waiting = service.call("request", {"spec": "1"}, ANN)["request"]
        service.call("release", {"lease_id": held["id"]}, BOB)
        asked = {"request_id": waiting["id"]}
        ledger.count = 0
        ledger.fail_at = number
        ledger.is_kept = is_kept
        ledger.stays_down = True
        with contextlib.suppress(LedgerUnavailable):
            service.call("wait_for", asked, ANN)
        is_over = ledger.count < number
        ledger.is_down = False
        ledger.fail_at = None
        lease = service.call("wait_for", asked, ANN)["lease"]
        broker.maintain()
        assert [each.id for each in broker.leases()] == [lease["id"]]
        broker.close()
        if is_over:
            return
    raise AssertionError("more transactions than expected")


def test_a_lease_that_was_taken_back_is_not_handed_out_again(
    broker: Broker, ledger: FailingLedger
) -> None:
    """A call that has looked before it was taken back, and prepares afterwards."""
    request = broker.submit("1/4", holder("a"))
    lease = broker.lease(request.lease_id)
    broker.withdraw(request.id)
    with pytest.raises(LeaseLost):
        broker.prepare(lease)


def test_what_could_not_be_taken_back_is_once_the_ledger_answers(
    broker: Broker, ledger: FailingLedger
) -> None:
    first = broker.submit("1", holder("kernel-1"))
    ledger.fail_at = ledger.count + 2
    ledger.is_kept = True
    ledger.stays_down = True
    with pytest.raises(LedgerUnavailable):
        broker.submit("1/2", holder("kernel-2"))
    ledger.is_down = False
    lease = broker.lease(first.lease_id)
    broker.release(lease.id, lease.token)
    assert broker.leases() == (), "it would have been granted to nobody"
    (waited,) = [
        event for event in broker.events() if event.detail == "it could not be answered"
    ]
    assert broker.request(waited.request_id).state is RequestState.CANCELLED


def granted_after_waiting(service: Service) -> str:
    """Id of a request that has waited, and whose lease nobody has been handed yet."""
    held = service.call("request", {"spec": "1"}, BOB)["lease"]
    waiting = service.call("request", {"spec": "1"}, ANN)["request"]
    service.call("release", {"lease_id": held["id"]}, BOB)
    return str(waiting["id"])


def test_a_lease_that_failed_before_it_was_handed_out_is_not_handed_out(
    broker: Broker,
) -> None:
    service = service_of(broker)
    request_id = granted_after_waiting(service)
    broker.withdraw(request_id)
    with pytest.raises(LeaseLost):
        service.call("wait_for", {"request_id": request_id}, ANN)


def test_a_lease_that_is_taken_back_while_it_is_handed_out_is_not(
    broker: Broker,
) -> None:
    request = broker.submit("1/4", holder("a"))
    broker.prepare(broker.lease(request.lease_id))
    broker.withdraw(request.id)
    with pytest.raises(LeaseLost):
        broker.answer(request.id)


@pytest.mark.parametrize("verb", ["request", "wait_for"])
def test_a_call_that_fails_takes_nothing_back_that_another_has_handed_out(
    broker: Broker, provider: Interrupted, ledger: FailingLedger, verb: str
) -> None:
    """A server is slow, its client asks once more and is answered, and only then the
    first call fails.
    """
    service = service_of(broker)
    payload = {"spec": "1", "idempotency_key": "k"}
    if verb == "wait_for":
        payload = {"request_id": granted_after_waiting(service)}
    answers = []

    def overtake() -> None:
        provider.meanwhile = None
        answers.append(service.call(verb, payload, ANN))
        ledger.is_down = True

    provider.meanwhile = overtake
    with pytest.raises(LedgerUnavailable):
        service.call(verb, payload, ANN)
    ledger.is_down = False
    broker.maintain()
    handed = answers[0]["lease"]["id"]
    assert broker.lease(handed).is_live
    assert handed not in provider.closed


def test_a_lease_whose_devices_cannot_be_prepared_ends_though_it_was_handed_out(
    broker: Broker, provider: Interrupted
) -> None:
    service = service_of(broker)
    payload = {"spec": "1", "idempotency_key": "k"}
    lease = service.call("request", payload, ANN)["lease"]
    provider.error = ProviderError("the device is closed")
    with pytest.raises(PrepareFailed):
        service.call("request", payload, ANN)
    assert broker.lease(lease["id"]).outcome is Outcome.FAILED
    assert lease["id"] in provider.closed


# -- keys ------------------------------------------------------------------------------


def test_who_asks_again_under_its_key_gets_the_same_request(broker: Broker) -> None:
    service = service_of(broker)
    payload = {"spec": "1/4", "idempotency_key": "once"}
    first = service.call("request", payload, ANN)
    again = service.call("request", payload, ANN)
    assert again["lease"]["id"] == first["lease"]["id"]
    assert again["prepared"] == first["prepared"]
    assert len(broker.leases()) == 1
    other = service.call("request", payload, BOB)
    assert other["lease"]["id"] != first["lease"]["id"]


def test_who_asks_again_is_not_refused_what_was_granted(broker: Broker) -> None:
    granted = broker.submit("1", holder(), idempotency_key="once")
    assert granted.lease_id
    again = broker.submit("2", holder(), idempotency_key="once")
    assert again == granted, "two devices are more than there are"
    with pytest.raises(Unsatisfiable):
        broker.submit("2", holder(), idempotency_key="twice")


def test_a_key_takes_back_what_has_become_of_its_request(broker: Broker) -> None:
    service = service_of(broker)
    payload = {"spec": "1", "idempotency_key": "once"}
    granted = service.call("request", payload, ANN)["lease"]["id"]
    waiting = service.call("request", {**payload, "idempotency_key": "two"}, ANN)
    service.call("take_back", {"idempotency_key": "once"}, BOB)
    assert broker.lease(granted).is_live, "it is another user's"
    for key in ("two", "once", "never used"):
        assert service.call("take_back", {"idempotency_key": key}, ANN) == {}
    assert broker.lease(granted).outcome is Outcome.FAILED
    assert broker.request(waiting["request"]["id"]).state is RequestState.CANCELLED


def test_a_key_takes_back_what_was_answered_twice(broker: Broker) -> None:
    service = service_of(broker)
    payload = {"spec": "1", "idempotency_key": "once"}
    for _ in range(2):
        granted = service.call("request", payload, ANN)["lease"]["id"]
    service.call("take_back", {"idempotency_key": "once"}, ANN)
    assert broker.lease(granted).outcome is Outcome.FAILED


def test_a_withdrawal_that_overtakes_its_request_is_not_forgotten(
    broker: Broker,
) -> None:
    broker.withdraw_key("ann", "once")
    with pytest.raises(Refused, match="was withdrawn"):
        broker.submit("1/4", holder(), idempotency_key="once")
    assert_nothing_is_left(broker)


def test_a_withdrawal_waits_for_the_ledger(
    broker: Broker, ledger: FailingLedger
) -> None:
    request = broker.submit("1/4", holder(), idempotency_key="once")
    ledger.is_down = True
    broker.withdraw_key("ann", "once")
    ledger.is_down = False
    broker.cycle()
    assert broker.lease(request.lease_id).outcome is Outcome.FAILED


# -- preparation -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(1), RuntimeError("x"), GeneratorExit()]
)
def test_every_way_out_of_a_preparation_ends_the_lease(
    broker: Broker, provider: Interrupted, error: BaseException
) -> None:
    lease = broker.lease(broker.submit("1/4", holder()).lease_id)
    provider.error = error
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        broker.prepare(lease)
    assert not isinstance(caught.value, AssertionError)
    ended = broker.lease(lease.id)
    assert ended.outcome is Outcome.FAILED
    assert ended.condition(ConditionKind.FAILED) is not None


def test_a_lease_whose_preparation_could_not_be_written_down_ends(
    broker: Broker, ledger: FailingLedger
) -> None:
    lease = broker.lease(broker.submit("1/4", holder()).lease_id)
    ledger.is_down = True
    with pytest.raises(LedgerUnavailable):
        broker.prepare(lease)
    ledger.is_down = False
    broker.cycle()
    assert broker.lease(lease.id).outcome is Outcome.FAILED


def test_a_lease_in_use_outlives_a_ledger_that_fails_while_it_is_prepared_again(
    broker: Broker, ledger: FailingLedger
) -> None:
    lease = broker.lease(broker.submit("1/4", holder()).lease_id)
    broker.prepare(lease)
    active = broker.activate(lease.id, lease.token, verified=True)
    ledger.is_down = True
    broker.prepare(active)  # nothing has changed, so nothing is written
    ledger.is_down = False
    broker.cycle()
    assert broker.lease(lease.id).state is LeaseState.ACTIVE


# -- other verbs that write ------------------------------------------------------------


def test_a_reservation_whose_admin_got_no_answer_is_taken_back(
    broker: Broker, ledger: FailingLedger
) -> None:
    now = broker.clock()
    ledger.fail_at = ledger.count + 2  # it is checked against the others first
    ledger.is_kept = True
    ledger.stays_down = True
    with pytest.raises(LedgerUnavailable):
        broker.reserve(
            name="course",
            queue="default",
            spec="1",
            count=1,
            starts_at=now + 10,
            ends_at=now + 20,
        )
    ledger.is_down = False
    broker.cycle()
    assert broker.reservations() == ()


def test_what_is_written_is_done_though_the_cycle_after_it_fails(
    broker: Broker, ledger: FailingLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = broker.lease(broker.submit("1", holder("kernel-1")).lease_id)
    seen_last = ledger.read("testbox", broker.clock())
    waiting = broker.submit("1", holder("kernel-2"))
    # The end is planned with what was seen last, and that is over.
    monkeypatch.setattr(ledger, "recall", lambda host, now: seen_last)
    ledger.fail_at = ledger.count + 3  # release, finish; then the cycle
    ledger.stays_down = True
    assert broker.release(lease.id, lease.token).outcome is Outcome.RELEASED
    assert ledger.is_down
    ledger.is_down = False
    broker.cycle()
    assert broker.request(waiting.id).state is RequestState.GRANTED
