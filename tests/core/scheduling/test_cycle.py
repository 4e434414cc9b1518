from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_aistack.core.model.lease import Outcome
from jupyter_aistack.core.model.plan import End, Grant, grant_to_lease
from jupyter_aistack.core.model.policy import Policy, Queue, UserLimits
from jupyter_aistack.core.scheduling.cycle import plan
from tests.fakes.world import World, ask, gpus

QUEUES = (
    Queue(name="default"),
    Queue(name="small", limit=Fraction(1, 2)),
    Queue(name="first", priority=5),
    Queue(name="owed", quota=Fraction(1)),
    Queue(name="batch", is_batch=True, weight=Fraction(3)),
)
POLICY = Policy(queues=QUEUES)


def world(*requests: object, policy: Policy = POLICY, count: int = 2) -> World:
    made = World(gpus(count), policy)
    made.submit(*requests)  # type: ignore[arg-type]
    return made


def test_who_came_first_is_served_first() -> None:
    box = world(ask("late", "2", at=2), ask("early", "1", at=1))
    box.turn(10)
    assert box.holds() == {"early": "1"}


def test_a_queue_of_higher_priority_and_a_request_of_higher_priority_go_first() -> None:
    box = world(
        ask("a", "2", at=1),
        ask("b", "2", at=2, queue="first"),
        ask("c", "2", at=0, priority=-1),
    )
    box.turn(10)
    assert box.holds() == {"b": "2"}
    box.release("b")
    box.turn()
    assert box.holds() == {"a": "2"}


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
    assert "not to wait" in box.rejected["b"].reason
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


def test_leases_past_their_time_or_without_a_living_holder_end() -> None:
    leases = tuple(
        grant_to_lease(
            Grant(request=ask(f"r{n}"), slices=(), expires_at=at), f"l{n}", n, 0.0
        )
        for n, at in ((1, 5), (2, 50), (3, 50))
    )
    snapshot = replace(world().snapshot(), leases=leases, dead=frozenset({"l2"}))
    assert [
        (a.lease_id, a.outcome)
        for a in plan(snapshot, 10.0, ttl_seconds=60).actions
        if isinstance(a, End)
    ] == [
        ("l1", Outcome.EXPIRED),
        ("l2", Outcome.ABANDONED),
    ]


def test_a_request_of_a_dead_process_is_rejected() -> None:
    snapshot = replace(world(ask("a")).snapshot(), dead=frozenset({"a"}))
    assert [a.request_id for a in plan(snapshot, 1.0, ttl_seconds=60).rejections()] == [
        "a"
    ]


def test_who_has_waited_a_day_goes_before_queues_of_any_priority() -> None:
    box = world(ask("hog", "2"), policy=Policy(queues=QUEUES, age_seconds=100))
    box.turn()
    box.submit(ask("old", "2", at=1))
    box.turn(200)
    box.submit(ask("new", "2", at=150, queue="first"))
    box.release("hog")
    box.turn()
    assert box.holds() == {"old": "2"}


SPECS = st.sampled_from(["1/8", "1/4", "1/3", "1/2", "1", "2", "10GiB", "1/2x2", "3"])
REQUESTS = st.lists(
    st.tuples(
        SPECS,
        st.integers(0, 90),
        st.sampled_from([q.name for q in QUEUES]),
        st.sampled_from(["ann", "bob", "eve"]),
        st.sampled_from([None, None, 0, 50]),
        st.sampled_from([None, 30.0, 5000.0]),
        st.booleans(),
    ),
    max_size=15,
)


def asked(table: list[tuple]) -> list:  # type: ignore[type-arg]
    return [
        ask(
            f"r{n}",
            spec,
            at,
            queue=queue,
            user=user,
            patience_seconds=patience,
            lease_seconds=seconds,
            preemptible=preemptible,
        )
        for n, (spec, at, queue, user, patience, seconds, preemptible) in enumerate(
            table
        )
    ]


@given(REQUESTS, REQUESTS)
@settings(deadline=None)
def test_a_plan_grants_no_more_than_there_is_keeps_quotas_and_applied_twice_changes_nothing(
    first: list[tuple], second: list[tuple]
) -> None:
    policy = replace(POLICY, min_runtime_seconds=0.0)
    box = world(*asked(first), policy=policy)
    box.turn(100)
    box.submit(*(replace(request, id=f"s{request.id}") for request in asked(second)))
    box.now += 50
    snapshot = box.snapshot()
    todo = plan(snapshot, box.now, ttl_seconds=60)
    shuffled = replace(snapshot, requests=snapshot.requests[::-1])
    assert todo == plan(shuffled, box.now, ttl_seconds=60)
    before = {lease.queue for lease in box.leases.values() if lease.notice}
    box.turn()
    box.check_room()
    decided = [r.request_id for r in todo.rejections()] + [
        g.request.id for g in todo.actions if isinstance(g, Grant)
    ]
    assert len(decided) == len(set(decided))
    for queue in QUEUES:
        held = sum(
            (
                p.fraction
                for le in box.leases.values()
                if le.queue == queue.name
                for p in le.slices
            ),
            Fraction(0),
        )
        assert queue.limit is None or held <= queue.limit
        staying = [
            le
            for le in box.leases.values()
            if le.queue == queue.name and le.notice is None
        ]
        if (
            queue.quota
            and queue.name not in before
            and any(le.notice for le in box.leases.values())
        ):
            gone = [
                le for le in box.leases.values() if le.queue == queue.name and le.notice
            ]
            assert (
                not gone
                or sum((p.fraction for le in staying for p in le.slices), Fraction(0))
                >= queue.quota
            )
    assert box.turn().is_empty


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


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (2, 5)])
def test_what_two_queues_get_converges_to_their_weights(
    weights: tuple[int, int],
) -> None:
    queues = tuple(
        Queue(name=f"q{n}", weight=Fraction(w)) for n, w in enumerate(weights)
    )
    box = World(gpus(2), Policy(queues=queues, half_life_seconds=1e6))
    number, used = 0, [0.0, 0.0]
    for _ in range(1000):
        for queue in queues:
            while sum(r.queue == queue.name for r in box.requests.values()) < 4:
                number += 1
                box.submit(
                    ask(
                        f"r{number}",
                        "1/2",
                        box.now,
                        user=queue.name,
                        queue=queue.name,
                        lease_seconds=600.0,
                    )
                )
        box.turn(200)
        for lease in box.leases.values():
            used[int(lease.queue[1])] += 200 * 0.5
    assert used[1] / used[0] == pytest.approx(weights[1] / weights[0], rel=0.1)


def test_users_of_one_queue_share_alike_and_who_used_much_yesterday_waits_today() -> (
    None
):
    box = World(gpus(1))
    box.submit(ask("yesterday", "1", user="ann", lease_seconds=86000.0))
    box.turn()
    box.turn(86400)
    box.submit(
        ask("ann-1", "1", box.now, user="ann"),
        ask("bob-1", "1", box.now + 1, user="bob"),
    )
    box.turn(2)
    assert box.holds() == {"bob-1": "1"}


def test_interactive_goes_before_batch_but_for_the_share_that_is_kept_for_batch() -> (
    None
):
    queues = (Queue(name="default"), Queue(name="night", is_batch=True))
    plain, kept = (
        Policy(queues=queues),
        Policy(queues=queues, batch_share=Fraction(1, 4)),
    )
    for policy, expected in ((plain, {"a": "2"}), (kept, {"b": "1/2", "c": "1"})):
        night = ask("b", "1/2", at=0, queue="night")
        short = ask("c", "1", at=2, user="bob", lease_seconds=60)
        box = world(night, ask("a", "2", at=1), short, policy=policy)
        box.turn(10)
        assert box.holds() == expected, policy


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


def test_what_a_lease_that_ends_now_has_used_counts_at_once() -> None:
    box = world(ask("ann-1", "1", lease_seconds=1000.0), count=1)
    box.turn()
    box.submit(ask("ann-2", "1", 1.0), ask("bob", "1", 2.0, user="bob"))
    box.turn(1000)
    assert set(box.holds()) == {"bob"}
