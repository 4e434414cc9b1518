"""One pass over those who wait: what is granted, held back and refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_aistack.core.model.policy import Policy, UserLimits
from tests.fakes.queues import QUEUES, REQUESTS, asked, world
from tests.fakes.world import World, ask, gpus

POLICY = Policy(queues=QUEUES)


def test_small_requests_cannot_starve_a_large_one() -> None:
    box = world(ask("held", "1/2"))
    box.turn()
    box.submit(
        ask("whole", "2", at=1), *(ask(f"small-{n}", "1/4", at=2 + n) for n in range(5))
    )
    assert not box.turn(10).actions
    box.release("held")
    box.turn()
    assert box.holds() == {"whole": "2"}


def test_a_request_that_was_not_to_wait_is_rejected_with_the_reason() -> None:
    box = world(ask("a", "2", at=1), ask("b", "1/4", at=2, patience_seconds=0))
    box.turn(10)
    assert "timed out waiting" in box.rejected["b"].reason
    assert box.rejected["b"].code == "AcquireTimeout"


def test_a_queue_never_holds_more_than_its_limit_and_a_request_above_it_is_refused() -> (
    None
):
    small = [
        ask("a", "1/2", queue="small"),
        ask("b", "1/4", at=1, queue="small"),
        ask("c", "1", at=2, queue="small"),
    ]
    box = world(*small)
    box.turn(10)
    assert box.holds() == {"a": "1/2"}
    assert box.rejected["c"].code == "QuotaExceeded"
    assert "b" in box.requests


def test_a_user_never_holds_more_than_the_limits_allow_and_keeps_nobody_else_waiting() -> (
    None
):
    limits = {"*": UserLimits(slices=1), "bob": UserLimits(devices=Fraction(1, 2))}
    box = world(
        *(ask(f"ann-{n}", "1/4", at=n) for n in range(3)),
        ask("bob-1", "1/2", at=5, user="bob"),
        ask("bob-2", "1/4", at=6, user="bob"),
        ask("bob-3", "1", at=7, user="bob"),
        ask("eve", "1/4", at=8, user="eve"),
        policy=Policy(limits=limits),
    )
    box.turn(10)
    assert set(box.holds()) == {"ann-0", "bob-1", "eve"}
    assert box.rejected["bob-3"].code == "QuotaExceeded"


SPECS = st.sampled_from(["1/8", "1/4", "1/3", "1/2", "1", "2", "10GiB", "1/2x2", "3"])


@given(REQUESTS, st.integers(1, 400))
@settings(deadline=None)
def test_every_feasible_request_is_granted_within_a_bound_when_leases_end(
    table: list[tuple], hold_seconds: int
) -> None:
    """Leases are given back after a while, and a stream of small requests of others
    never stops.
    """
    requests = [replace(request, patience_seconds=None) for request in asked(table)]
    box = world(*requests, policy=replace(POLICY, age_seconds=5.0 * hold_seconds))
    box.turn(100)
    since = dict.fromkeys(box.holds(), box.now)
    for turn in range(4 * len(requests) + 10):
        stream = ask(
            f"stream-{turn}",
            "1/8",
            box.now,
            user="zoe",
            queue="first" if turn % 2 else "default",
        )
        box.submit(stream)
        box.turn(hold_seconds)
        box.check_room()
        for name in list(box.holds()):
            if box.now - since.setdefault(name, box.now) >= hold_seconds:
                box.release(name)
    waiting = [name for name in box.requests if not name.startswith("stream")]
    assert waiting == []


def test_one_who_waits_for_a_broken_device_does_not_use_up_the_place_at_the_head() -> (
    None
):
    good, bad = gpus(2)
    box = World((good, replace(bad, name="NVIDIA A100", problem="does not answer")))
    box.submit(ask("small", "1/4", lease_seconds=1000.0))
    box.turn()
    box.submit(
        ask("broken", "1,model:a100", 1.0),
        ask("whole", "1,model:h100", 2.0),
        ask("late", "1/4", 3.0),
    )
    box.turn(10)
    assert set(box.holds()) == {"small"}, (
        "room is kept for the one that can start when small ends"
    )
