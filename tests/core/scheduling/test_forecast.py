from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given, settings

from jupyter_aistack.core.model.device import Inventory, MIGInstance
from jupyter_aistack.core.model.policy import Policy, Queue, UserLimits
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.scheduling.forecast import QueuedForecast, forecast
from tests.fakes.queues import REQUESTS, asked, world
from tests.fakes.world import World, ask, gpus


def waiting(box: World) -> dict[str, QueuedForecast]:
    return {each.request.id: each for each in forecast(box.snapshot(), box.now)}


def busy_box(**policy: object) -> World:
    """One GPU: alice has half for 12 more minutes, bob the other half without an
    end.
    """
    box = World(gpus(1), Policy(**policy))  # type: ignore[arg-type]
    box.submit(
        ask("a", "1/2", user="alice", lease_seconds=720.0), ask("b", "1/2", user="bob")
    )
    box.turn()
    return box


def test_the_reason_says_what_is_needed_and_whose_lease_ends_when() -> None:
    box = busy_box()
    box.submit(ask("next", "1/2", user="eve"))
    box.turn()
    entry = waiting(box)["next"]
    assert (entry.position, entry.eta_at) == (1, 720.0)
    assert (
        entry.reason
        == "needs 1/2 of a GPU; the next one frees in about 12 min when alice's lease ends"
    )
    assert (
        entry.public_reason
        == "needs 1/2 of a GPU; the next one frees in about 12 min when a lease ends"
    )


def test_nobody_is_promised_what_hangs_on_a_lease_without_an_end() -> None:
    box = busy_box()
    box.submit(ask("whole", "1", user="eve"))
    entry = waiting(box)["whole"]
    assert entry.eta_at is None
    assert (
        entry.reason == "needs a whole GPU; what is in its way has no end that is known"
    )
    lease = box.lease_of("b")
    box.leases[lease.id] = replace(lease, active_at=-2040.0)
    assert waiting(box)["whole"].reason.endswith("bob's lease has been idle for 34 min")
    assert "bob" not in waiting(box)["whole"].public_reason


def test_behind_a_request_without_a_known_start_nobody_is_promised_a_turn() -> None:
    box = World(gpus(1))
    box.submit(ask("b", "3/4", user="bob"))
    box.turn()
    box.submit(
        ask("whole", "1", at=1.0, user="eve"),
        ask("small", "1/8", at=2.0, user="ann"),
        ask("brief", "1/8", at=3.0, user="ann", lease_seconds=60.0),
    )
    for _ in range(3):
        box.turn(60)
        shown = waiting(box)
        assert "brief" not in shown, "it is done before it is missed"
        small = shown["small"]
        assert (small.position, small.eta_at) == (2, None)
        assert small.reason == (
            "needs 1/8 of a GPU; held back for whole.ipynb (eve), who is ahead and "
            "needs a whole GPU, and when that can start is not known"
        )
        assert small.public_reason == (
            "needs 1/8 of a GPU; held back for a request ahead that needs a whole GPU, "
            "and when that can start is not known"
        )
    box.release("b")
    box.turn()
    assert "whole" in box.holds()


def test_what_is_beside_a_request_without_a_known_start_has_its_time() -> None:
    box = World(gpus(2))
    box.submit(
        ask("b", "3/4", user="bob"),
        ask("c", "3/4", user="bob"),
        ask("d", "1/4", user="bob", lease_seconds=720.0),
        ask("e", "1/4", user="bob", lease_seconds=900.0),
    )
    box.turn()
    box.submit(
        ask("whole", "1", at=1.0, user="eve"),
        ask("small", "1/4", at=2.0, user="ann"),
    )
    shown = waiting(box)
    assert shown["whole"].eta_at is None
    assert shown["small"].eta_at in (720.0, 900.0), "the device the other waits not for"


@given(REQUESTS)
@settings(deadline=None)
def test_nobody_who_still_waits_after_a_plan_is_told_that_it_is_its_turn(
    wanted: list[tuple],  # type: ignore[type-arg]
) -> None:
    box = world(*asked(wanted))
    box.turn(100)
    for forecast_ in waiting(box).values():
        assert forecast_.eta_at is None or forecast_.eta_at > box.now, forecast_


def test_those_behind_wait_for_those_before_them() -> None:
    box = World(gpus(1))
    box.submit(ask("held", "1", lease_seconds=600.0))
    box.turn()
    box.submit(
        *(ask(f"w{n}", "1", n, user=f"u{n}", lease_seconds=600.0) for n in range(3)),
        ask("x", "1", 9, user="z"),
    )
    result = waiting(box)
    assert [(each.position, each.eta_at) for each in result.values()] == [
        (1, 600.0),
        (2, 1200.0),
        (3, 1800.0),
        (4, 2400.0),
    ]
    assert (
        result["w1"].reason
        == "needs a whole GPU; requests with higher priority are ahead; expected in about 20 min"
    )


def test_the_forecast_comes_true_when_leases_end_as_announced() -> None:
    box = World(gpus(2))
    box.submit(*(ask(f"h{n}", "1/2", lease_seconds=100.0 * (n + 1)) for n in range(4)))
    box.turn()
    box.submit(
        *(
            ask(f"w{n}", spec, n, user=f"u{n}", lease_seconds=150.0)
            for n, spec in enumerate(["1", "1/2", "2", "1/4"])
        )
    )
    promised = {name: each.eta_at for name, each in waiting(box).items()}
    started: dict[str, float] = {}
    for _ in range(120):
        for name in box.holds():
            started.setdefault(name, box.now)
        box.turn(10)
    assert all(
        eta is not None and started[name] <= eta for name, eta in promised.items()
    ), (promised, started)


def test_limits_are_named_with_the_time_they_free_up() -> None:
    box = busy_box(limits={"alice": UserLimits(slices=1)})
    box.submit(ask("more", "1/4", 1, user="alice"))
    entry = waiting(box)["more"]
    assert entry.reason == (
        "alice holds 1 of the 1 slices a user may hold at once; expected in about 12 min"
    )


def test_a_queue_at_its_limit_says_so() -> None:
    box = busy_box(queues=(Queue(name="default", limit=Fraction(1)),))
    box.submit(ask("more", "1/4", 1, user="eve"))
    assert waiting(box)["more"].reason.startswith(
        "queue default holds 1 of the 1 devices it may hold at once"
    )


def test_room_being_made_and_room_kept_are_told() -> None:
    box = World(gpus(1))
    box.submit(ask("old", "1", preemptible=True))
    box.turn()
    box.submit(ask("new", "1", 1000, user="eve"))
    box.turn(1000)
    assert (
        waiting(box)["new"].reason
        == "needs a whole GPU; capacity is being freed for it, in 1 min at the latest"
    )
    kept = Reservation(
        id="v",
        name="exam",
        queue="exam",
        spec=parse_spec("1"),
        count=1,
        starts_at=0.0,
        ends_at=9000.0,
        host="testbox",
    )
    box = World(
        gpus(1), Policy(queues=(Queue(name="default"), Queue(name="exam"))), (kept,)
    )
    box.submit(ask("other", "1/2"))
    box.turn()
    assert waiting(box)["other"].reason == (
        "needs 1/2 of a GPU; capacity is held for the reservation 'exam'; expected in about 2 h 30 min"
    )


def test_room_that_is_made_for_a_request_is_no_turn_of_another() -> None:
    box = World(gpus(1), Policy(limits={"*": UserLimits(slices=1)}))
    box.submit(ask("old", "1/2", preemptible=True))
    box.turn()
    box.submit(ask("new", "1", 1000, user="eve"))
    box.turn(1000)
    box.submit(
        ask("urgent", "1/2", 1001, user="bob", priority=9),
        ask("second", "1/8", 1002, user="eve"),
    )
    box.turn(1)
    assert box.holds() == {"old": "1/2"}
    shown = waiting(box)
    assert [each.position for each in map(shown.get, ("new", "urgent"))] == [1, 2]
    assert shown["new"].reason == (
        "needs a whole GPU; capacity is being freed for it, in 1 min at the latest"
    )
    assert "turn" not in shown["urgent"].reason
    assert shown["urgent"].eta_at is None
    assert shown["second"].reason == (
        "eve holds 0 and is to get 1 of the 1 slices a user may hold at once"
    )


def test_what_cannot_be_used_now_is_named() -> None:
    box = World(gpus(1, problem="does not answer"))
    box.submit(ask("a", "1/2"))
    assert "waits for a device that does not answer" in waiting(box)["a"].reason


def test_ten_thousand_waiting_know_their_position_and_users_take_turns() -> None:
    box = busy_box()
    box.submit(*(ask(f"r{n}", "1/2", n / 1e6, user=f"u{n % 7}") for n in range(10_000)))
    result = forecast(box.snapshot(), box.now)
    assert [each.position for each in result] == list(range(1, 10_001))
    assert {each.request.holder.user for each in result[:7]} == {
        f"u{n}" for n in range(7)
    }
    assert result[500].reason == "500 requests are ahead"


def test_mig_instances_free_up_for_one_after_the_other_and_on_devices_that_are_there() -> (
    None
):
    devices = [
        replace(
            gpu,
            mig_enabled=True,
            mig=(MIGInstance(uuid=f"M-{gpu.id}", profile="1g.10gb", memory_bytes=GIB),),
        )
        for gpu in gpus(2)
    ]
    box = World(devices)
    box.submit(
        ask("a", "1g.10gb", lease_seconds=100.0),
        ask("b", "1g.10gb", lease_seconds=200.0),
    )
    box.turn()
    box.submit(ask("c", "1g.10gb", 1.0), ask("d", "1g.10gb", 2.0))
    assert [waiting(box)[name].eta_at for name in "cd"] == [100.0, 200.0]
    box.inventory = Inventory(host="testbox", devices=tuple(devices[1:]))
    assert [waiting(box)[name].eta_at for name in "cd"] == [200.0, None]
