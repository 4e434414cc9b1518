from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import example, given, settings

from jupyter_aistack.core.model.lease import Outcome
from jupyter_aistack.core.model.plan import End, Grant, grant_to_lease
from jupyter_aistack.core.scheduling.cycle import plan
from tests.fakes.queues import POLICY, QUEUES, REQUESTS, asked, world
from tests.fakes.world import ask


def test_leases_past_their_end_or_without_a_living_holder_end() -> None:
    leases = tuple(
        grant_to_lease(
            Grant(request=ask(f"r{n}"), slices=(), expires_at=50, ends_at=end),
            f"l{n}",
            n,
            0.0,
        )
        for n, end in ((1, 5), (2, None), (3, None))
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


def of(queue: str, spec: str, at: int, *, preemptible: bool = False) -> tuple:  # type: ignore[type-arg]
    """A request of ann's without an end, as the tables below hold it."""
    return (spec, at, queue, "ann", None, None, preemptible)


EIGHTH = ("1/8", 0, "default", "ann", None, None, False)
PREEMPTIBLE = ("1/8", 0, "default", "ann", None, None, True)
LATER = ("1/8", 1, "default", "ann", None, None, False)


@given(REQUESTS, REQUESTS)
@example(
    # What is preempted for the later ones is not for the preemptible one before them.
    first=[
        *[EIGHTH] * 4,
        PREEMPTIBLE,
        ("1/8", 0, "default", "ann", None, 30.0, False),
        ("1/8", 1, "default", "ann", None, None, True),
        *[LATER] * 3,
        EIGHTH,
        ("1/3", 0, "default", "ann", None, None, True),
        ("1/3", 1, "default", "ann", None, None, False),
        ("1/2", 0, "default", "ann", None, None, False),
    ],
    second=[],
)
@example(
    # What is freed for the first of the later ones has no room for the others too.
    first=[
        *[EIGHTH] * 4,
        PREEMPTIBLE,
        ("1/8", 0, "default", "ann", None, 30.0, False),
        *[EIGHTH] * 3,
        PREEMPTIBLE,
        of("default", "1/4", 0, preemptible=True),
        *[EIGHTH] * 2,
        ("1/4", 0, "default", "ann", 0, None, False),
    ],
    second=[
        *[EIGHTH] * 8,
        ("1/4", 2, "default", "bob", None, 5000.0, False),
        of("default", "1/4", 2),
        *[PREEMPTIBLE] * 2,
        EIGHTH,
        ("1/4", 2, "default", "bob", None, None, True),
    ],
)
@example(
    # A request that its queue will never allow waits behind others of its shape.
    first=[
        of("owed", "1/8", 75),
        ("1/8", 79, "first", "ann", None, 30.0, True),
    ],
    second=[
        of("small", "1/2x2", 58, preemptible=True),
        of("default", "1/8", 69),
        of("default", "1/2x2", 17, preemptible=True),
        of("default", "1/8", 83, preemptible=True),
        of("owed", "1/8", 87),
        of("default", "2", 75),
        of("first", "1/3", 73),
        of("default", "1/8", 23),
        of("batch", "1/8", 16),
        of("owed", "1/2", 59),
        of("default", "1/8", 35),
        of("default", "1/8", 34),
        of("first", "1/8", 0),
        of("first", "1/4", 0, preemptible=True),
    ],
)
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
