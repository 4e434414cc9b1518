"""What queues and users get in the long run."""

from __future__ import annotations

from fractions import Fraction

import pytest

from jupyter_aistack.core.model.policy import Policy, Queue
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
