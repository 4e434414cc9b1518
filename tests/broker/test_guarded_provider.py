"""A provider that raises what it did not promise: it is said once, and all else goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping

import pytest

from jupyter_aistack.broker.api.figures import figures_of
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.guarded_provider import GuardedProvider
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.lease import Lease, LeaseState, Outcome
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.core.model.sample import DeviceSample, Usage
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.wire.visibility import Visibility
from jupyter_aistack.exceptions import PrepareFailed, ProviderError, Refused
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.server.rest.metrics import exposition
from jupyter_aistack.testing import ManualClock, holder, simulated_broker
from tests.fakes.bare_provider import BareProvider, Leases, Pids


class Moody(BareProvider):
    """One GPU that is in use by everybody."""

    name = "moody"

    def measure(
        self, devices: Mapping[str, Device], leases: Leases, pids: Pids
    ) -> Mapping[str, DeviceSample]:
        used = dict.fromkeys(leases, Usage(memory_bytes=GIB))
        return dict.fromkeys(devices, DeviceSample(memory_bytes=GIB, leases=used))


UNPROMISED = (RuntimeError("boom"), OSError(5, "boom"), KeyError("boom"))


@pytest.fixture
def moody() -> Moody:
    return Moody()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(moody: Moody, clock: ManualClock) -> Iterator[Broker]:
    beside = simulated_broker("1xL4-24GB", clock=clock).devices.providers[0]
    broker = Broker(MemoryLedger(), [moody, beside], host="box", clock=clock)
    yield broker
    moody.failures = {}
    broker.close()


def lease_on(broker: Broker, spec: str = "1,model:h100", name: str = "kernel") -> Lease:
    request = broker.submit(spec, holder(name, host="box", pid=os.getpid()))
    assert request.state is RequestState.GRANTED, request.reason
    return broker.lease(request.lease_id)


@pytest.mark.parametrize("failure", UNPROMISED, ids=lambda e: type(e).__name__)
def test_use_that_cannot_be_measured_is_unknown_and_said_once(
    broker: Broker, moody: Moody, clock: ManualClock, failure: Exception, caplog
) -> None:
    lease = lease_on(broker)
    moody.failures["sample"] = failure
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            clock.advance(3.0)
            broker.maintain()
            used, on_devices = broker.usage()
    assert used[lease.id] == Usage()
    assert on_devices["GPU-0"] == Usage()
    assert len(on_devices) == 2
    shown = exposition(figures_of(broker, Visibility(user="", sees_names=True)), {})
    assert b"aistack_device_memory_bytes" in shown
    about = [record for record in caplog.records if "moody" in record.getMessage()]
    assert len(about) == 1
    (problem,) = broker.inventory().problems
    assert problem.startswith(
        f"moody: its devices cannot be measured: {type(failure).__name__}: "
    )
    assert "boom" in problem

    moody.failures = {}
    clock.advance(3.0)
    assert broker.usage()[0][lease.id].memory_bytes == GIB
    clock.advance(3.0)
    assert broker.inventory().problems == ()


@pytest.mark.parametrize("failure", UNPROMISED, ids=lambda e: type(e).__name__)
def test_devices_that_cannot_be_found_do_not_answer_and_others_are_granted(
    broker: Broker, moody: Moody, clock: ManualClock, failure: Exception
) -> None:
    lease = lease_on(broker)
    moody.failures["discover"] = failure
    clock.advance(3.0)
    broker.maintain()
    silent, other = broker.inventory().devices
    assert "boom" in silent.problem
    assert not other.problem
    (problem,) = broker.inventory().problems
    assert problem.startswith(f"moody: {type(failure).__name__}: ")
    assert broker.lease(lease.id).is_live
    assert broker.usage()[1].keys() == {silent.id, other.id}
    beside = lease_on(broker, "1,model:l4", "other")
    assert beside.slices[0].device_id == other.id
    waiting = broker.submit("1,model:h100", holder("third", host="box"))
    assert waiting.state is RequestState.QUEUED


@pytest.mark.parametrize("failure", UNPROMISED, ids=lambda e: type(e).__name__)
def test_a_lease_that_cannot_be_prepared_ends_and_another_gets_its_slice(
    broker: Broker, moody: Moody, failure: Exception
) -> None:
    lease = lease_on(broker)
    moody.failures["prepare"] = failure
    with pytest.raises(PrepareFailed, match="boom"):
        broker.prepare(lease)
    ended = broker.lease(lease.id)
    assert (ended.state, ended.outcome) == (LeaseState.ENDED, Outcome.FAILED)
    moody.failures = {}
    assert broker.prepare(lease_on(broker, name="next")).environment


@pytest.mark.parametrize("method", ["unprepare", "has_moved", "enter", "faults"])
def test_what_fails_around_a_lease_does_not_keep_it(
    broker: Broker, moody: Moody, method: str
) -> None:
    moody.failures[method] = RuntimeError("boom")
    lease = lease_on(broker)
    broker.prepare(lease)
    broker.bind(lease.id, lease.token, pid=os.getpid(), root_pid=os.getpid())
    broker.activate(lease.id, lease.token, verified=None)
    broker.devices.has_moved(lease)
    broker.maintain()
    released = broker.release(lease.id, lease.token)
    assert (released.state, released.outcome) == (LeaseState.ENDED, Outcome.RELEASED)
    assert lease_on(broker, name="next").is_live


def test_questions_that_cannot_be_answered_are_unknown(
    broker: Broker, moody: Moody
) -> None:
    lease = lease_on(broker)
    for method in ("clients", "driver_version", "simulated_state", "faults", "close"):
        moody.failures[method] = RuntimeError("boom")
    assert broker.clients(lease) is None
    assert GuardedProvider(moody).driver_version() == ""
    assert broker.devices.simulated_state(lease) is None
    assert broker.host_state.faults() == ()
    broker.devices.close()


@pytest.mark.parametrize("method", ["plan_room", "make_room", "terminate"])
def test_what_is_asked_for_fails_with_one_sentence(
    broker: Broker, moody: Moody, method: str
) -> None:
    lease = lease_on(broker)
    moody.failures[method] = RuntimeError("boom\n  on two lines\x1b[31m")
    calls = {
        "plan_room": lambda: broker.devices.plan_room(["1g.10gb"], {}),
        "make_room": lambda: broker.devices.make_room(["1g.10gb"], {}),
        "terminate": lambda: broker.terminate(lease, 1),
    }
    with pytest.raises(ProviderError) as caught:
        calls[method]()
    assert caught.value.message == "RuntimeError: boom on two lines[31m"


def test_a_refusal_is_passed_on(broker: Broker, moody: Moody) -> None:
    moody.failures["make_room"] = Refused("the administrator has not allowed it")
    with pytest.raises(Refused, match="has not allowed"):
        broker.devices.make_room(["1g.10gb"], {})


@pytest.mark.parametrize(
    ("method", "answer"),
    [("discover", None), ("discover", ["GPU-0"]), ("sample", None), ("prepare", {})],
)
def test_an_answer_of_another_kind_is_an_error_of_the_provider(
    broker: Broker, moody: Moody, clock: ManualClock, method: str, answer: object
) -> None:
    lease = lease_on(broker)
    moody.answers[method] = answer
    clock.advance(3.0)
    broker.maintain()
    assert broker.usage()[1].keys() == {"GPU-0", broker.inventory().devices[1].id}
    if method == "prepare":
        with pytest.raises(PrepareFailed, match="expected Preparation, got dict"):
            broker.prepare(lease)
    else:
        clock.advance(3.0)
        assert "TypeError" in broker.inventory().problems[0]


def test_a_device_that_is_left_out_of_a_sample_is_unknown(
    broker: Broker, moody: Moody
) -> None:
    moody.answers["sample"] = {}
    lease = lease_on(broker)
    used, on_devices = broker.usage()
    assert (used[lease.id], on_devices["GPU-0"]) == (Usage(), Usage())


def test_an_interrupt_is_not_held_back(moody: Moody) -> None:
    moody.failures["discover"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        GuardedProvider(moody).discover("box")
