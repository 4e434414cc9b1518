"""What queues and users get in the long run."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Grant
from jupyter_aistack.core.model.policy import Policy, Queue, UserLimits
from jupyter_aistack.core.scheduling.cycle import plan
from tests.fakes.queues import QUEUES, world
from tests.fakes.world import World, ask, gpus

POLICY = Policy(queues=QUEUES)


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


def test_what_a_lease_that_ends_now_has_used_counts_at_once() -> None:
    box = world(ask("ann-1", "1", lease_seconds=1000.0), count=1)
    box.turn()
    box.submit(ask("ann-2", "1", 1.0), ask("bob", "1", 2.0, user="bob"))
    box.turn(1000)
    assert set(box.holds()) == {"bob"}


def held_elsewhere(name: str, spec: str = "1/2", **fields: object) -> Lease:
    """A lease on another host."""
    other = World(gpus(1, "far"))
    other.submit(ask(name, spec, **fields))  # type: ignore[arg-type]
    other.turn()
    (lease,) = other.leases.values()
    return lease


def granted(box: World, *elsewhere: Lease) -> set[str]:
    """The requests that are granted beside what is held elsewhere."""
    snapshot = replace(box.snapshot(), elsewhere=elsewhere)
    todo = plan(snapshot, box.now, ttl_seconds=60.0)
    return {each.request.id for each in todo.actions if isinstance(each, Grant)}


@pytest.mark.parametrize(
    "limits",
    [
        UserLimits(slices=1),
        UserLimits(devices=Fraction(1, 2)),
        UserLimits(hours_per_week=1.0),
    ],
)
def test_limits_of_a_user_count_what_is_held_on_all_hosts(limits: UserLimits) -> None:
    box = World(gpus(1), Policy(limits={"ann": limits}))
    box.now = 3 * 3600.0
    box.submit(ask("ann-1", "1/4"), ask("bob-1", "1/4", user="bob"))
    assert granted(box) == {"ann-1", "bob-1"}
    assert granted(box, held_elsewhere("far")) == {"bob-1"}
    assert granted(box, held_elsewhere("far", user="bob")) == {"ann-1", "bob-1"}


def test_what_a_queue_may_hold_is_of_the_devices_of_one_host() -> None:
    limited = Queue(name="default", limit=Fraction(1, 2), quota=Fraction(1, 2))
    box = World(gpus(1), Policy(queues=(limited,)))
    box.submit(ask("ann-1", "1/2"))
    assert granted(box, held_elsewhere("far")) == {"ann-1"}


def test_who_has_much_on_another_host_is_served_later() -> None:
    box = World(gpus(1))
    box.now = 100.0
    box.submit(ask("ann-1", "1", 1.0), ask("bob-1", "1", 2.0, user="bob"))
    assert granted(box) == {"ann-1"}
    assert granted(box, held_elsewhere("far")) == {"bob-1"}


def test_a_queue_that_has_much_on_another_host_is_served_later() -> None:
    box = World(gpus(1), Policy(queues=(Queue(name="a"), Queue(name="b"))))
    box.now = 100.0
    box.submit(
        ask("first", "1", 1.0, queue="a"), ask("second", "1", 2.0, queue="b", user="bo")
    )
    assert granted(box) == {"first"}
    assert granted(box, held_elsewhere("far", queue="a", user="eve")) == {"second"}
