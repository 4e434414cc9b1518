"""Who is served before whom."""

from __future__ import annotations

from fractions import Fraction

from jupyter_aistack.core.model.policy import Policy, Queue
from tests.fakes.queues import QUEUES, world
from tests.fakes.world import ask

POLICY = Policy(queues=QUEUES)


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


def test_who_has_waited_a_day_goes_before_queues_of_any_priority() -> None:
    box = world(ask("hog", "2"), policy=Policy(queues=QUEUES, age_seconds=100))
    box.turn()
    box.submit(ask("old", "2", at=1))
    box.turn(200)
    box.submit(ask("new", "2", at=150, queue="first"))
    box.release("hog")
    box.turn()
    assert box.holds() == {"old": "2"}


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
