from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.plan import Notify
from jupyter_aistack.core.model.policy import WEEK_SECONDS, Policy, Queue
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.scheduling.reservations import conflict
from jupyter_aistack.exceptions import InvalidRequest
from tests.fakes.world import World, ask, gpus

HOUR = 3600.0
POLICY = Policy(
    queues=(Queue(name="default"), Queue(name="class"), Queue(name="other"))
)


def lesson(**fields: object) -> Reservation:
    """Twenty people, 1/8 each, from ten to twelve."""
    text: dict[str, object] = {
        "id": "v-1",
        "name": "lesson",
        "queue": "class",
        "spec": parse_spec("1/8"),
        "count": 20,
    }
    return Reservation(
        **{**text, "starts_at": 10 * HOUR, "ends_at": 12 * HOUR, **fields}
    )  # type: ignore[arg-type]


def world(*, count: int = 4, **fields: object) -> World:
    return World(gpus(count), POLICY, (lesson(**fields),))


def test_the_class_finds_its_slices_though_others_wanted_everything() -> None:
    box = world()
    box.now = 9.5 * HOUR
    box.submit(
        *(
            ask(f"greedy-{n}", "1", user="bob", lease_seconds=20 * HOUR)
            for n in range(4)
        )
    )
    box.turn()
    assert len(box.holds()) == 1, "three of four GPUs are kept"
    box.submit(
        *(ask(f"pupil-{n:02}", "1/8", queue="class", user=f"p{n}") for n in range(20))
    )
    box.turn(0.5 * HOUR)
    assert sum(name.startswith("pupil") for name in box.holds()) == 20
    box.check_room()


def test_what_ends_before_the_window_may_have_the_room_until_then() -> None:
    box = world()
    box.now = 8 * HOUR
    box.submit(*(ask(f"short-{n}", "1", lease_seconds=2 * HOUR) for n in range(4)))
    box.turn()
    assert len(box.holds()) == 4


def test_a_lease_without_an_end_is_lent_the_room_until_the_window_begins() -> None:
    box = world()
    box.now = 8 * HOUR
    box.submit(*(ask(f"kernel-{n}", "1") for n in range(4)))
    box.turn()
    ends = sorted(
        (lease.ends_at or 0.0, conditions_text(lease.conditions))
        for lease in box.leases.values()
    )
    note = "lent until the reservation 'lesson' begins"
    assert ends == [(0.0, "")] + [(10 * HOUR, note)] * 3
    box.now = 10 * HOUR - 300
    box.submit(ask("late", "1/8"))
    assert not box.turn().actions, "five minutes are not worth lending"


def test_members_preempt_what_stands_in_the_way_of_their_reservation() -> None:
    box = World(gpus(4), POLICY)
    box.submit(
        *(ask(f"long-{n}", "1", queue="other", preemptible=True) for n in range(4))
    )
    box.turn()
    assert len(box.holds()) == 4
    box.now, box.reservations = 10 * HOUR, (lesson(),)
    box.submit(
        *(
            ask(f"pupil-{n}", "1/8", box.now, queue="class", user=f"p{n}")
            for n in range(20)
        )
    )
    assert len([a for a in box.turn().actions if isinstance(a, Notify)]) == 3
    box.turn(60)
    assert sum(name.startswith("pupil") for name in box.holds()) == 20


def test_after_the_window_the_room_is_everybodys_again() -> None:
    box = world()
    box.now = 12 * HOUR
    box.submit(*(ask(f"kernel-{n}", "1") for n in range(4)))
    box.turn()
    assert all(lease.ends_at is None for lease in box.leases.values())
    assert len(box.holds()) == 4


def test_weekly_windows_come_again() -> None:
    weekly = lesson(is_weekly=True)
    assert weekly.window(0) == (10 * HOUR, 12 * HOUR)
    assert weekly.window(11 * HOUR) == (10 * HOUR, 12 * HOUR)
    assert weekly.is_running(11 * HOUR)
    assert weekly.window(12 * HOUR) == (
        10 * HOUR + WEEK_SECONDS,
        12 * HOUR + WEEK_SECONDS,
    )
    assert weekly.window(12 * HOUR + 5 * WEEK_SECONDS) == (
        10 * HOUR + 6 * WEEK_SECONDS,
        12 * HOUR + 6 * WEEK_SECONDS,
    )
    assert lesson().window(12 * HOUR) is None


def test_reservations_that_cannot_both_be_held_are_found_out() -> None:
    box = Inventory(host="testbox", devices=gpus(4))
    other = lesson(
        id="v-2",
        name="exam",
        queue="other",
        starts_at=11 * HOUR,
        ends_at=13 * HOUR,
        count=12,
    )
    assert conflict(lesson(), [], box) == ""
    assert conflict(other, [lesson()], box) == ""
    too_many = replace(other, count=13)
    assert (
        conflict(too_many, [lesson()], box)
        == "count: 13 slices of 1/8 do not fit this host beside 'lesson'; 12 do"
    )
    assert conflict(replace(too_many, starts_at=12 * HOUR), [lesson()], box) == ""
    same = replace(other, queue="class", count=1)
    assert "overlaps the reservation 'lesson' of the same queue" in conflict(
        same, [lesson()], box
    )
    next_week = replace(
        too_many, starts_at=WEEK_SECONDS + 11 * HOUR, ends_at=WEEK_SECONDS + 13 * HOUR
    )
    assert conflict(next_week, [lesson()], box) == ""
    assert conflict(next_week, [lesson(is_weekly=True)], box) != ""
    assert (
        conflict(lesson(count=33), [], box)
        == "count: 33 slices of 1/8 do not fit this host; 32 do"
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": " "}, "name"),
        ({"count": 0}, "count"),
        ({"starts_at": 13 * HOUR}, "ends_at"),
        ({"ends_at": 10 * HOUR + 2 * WEEK_SECONDS, "is_weekly": True}, "ends_at"),
        ({"starts_at": 0.0, "ends_at": 1.0}, "ends_at"),
    ],
)
def test_nonsense_is_named(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        lesson(**fields).check(2.0)
    assert error.value.facts["field"] == field


def test_one_who_waits_for_the_end_of_a_window_is_not_in_the_way_of_its_members() -> (
    None
):
    policy = Policy(
        queues=(
            Queue(name="default", quota=Fraction(1), priority=1),
            Queue(name="class"),
        )
    )
    box = World(gpus(1), policy, (lesson(starts_at=0.0, ends_at=2 * HOUR, count=8),))
    box.submit(ask("large", "1"))
    assert box.turn().is_empty
    box.submit(
        *(ask(f"pupil-{n}", "1/8", 1.0, queue="class", user=f"p{n}") for n in range(8))
    )
    box.turn(1)
    assert len(box.holds()) == 8


def test_weekly_windows_meet_one_long_window_that_began_before_them() -> None:
    weekly = lesson(
        starts_at=15 * 24 * HOUR,
        ends_at=15 * 24 * HOUR + HOUR,
        is_weekly=True,
        id="v-2",
    )
    box = Inventory(host="testbox", devices=gpus(4))
    assert conflict(weekly, [lesson(starts_at=0.0, ends_at=21 * 24 * HOUR)], box) != ""
    assert conflict(weekly, [lesson(starts_at=0.0, ends_at=14 * 24 * HOUR)], box) == ""
