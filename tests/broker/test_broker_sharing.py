"""What the rules of sharing come to when a broker carries them out: limits, notices,
idle leases, reservations.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.events import EventKind
from jupyter_aistack.core.model.lease import LeaseState, NoticeKind, Outcome
from jupyter_aistack.core.model.policy import IdlePolicy, Policy, Queue, UserLimits
from jupyter_aistack.core.model.request import RequestState
from jupyter_aistack.core.model.usage_history import week_of, week_start
from jupyter_aistack.exceptions import (
    InvalidRequest,
    LeaseNotFound,
    QueueClosed,
    QuotaExceeded,
    Refused,
    UnknownQueue,
)
from jupyter_aistack.testing import ManualClock, holder, simulated_broker

HOUR = 3600.0


def made(clock: ManualClock, **policy: object) -> Broker:
    return simulated_broker("1xH100-80GB", clock=clock, policy=Policy(**policy))  # type: ignore[arg-type]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(week_start(week_of(1.7e9)) + HOUR)


def keep(
    broker: Broker, clock: ManualClock, seconds: float, step: float = 30.0
) -> None:
    """Let time pass with the upkeep a server does; leases are bound to nobody, so renew
    them by hand.
    """
    for _ in range(int(seconds / step)):
        clock.advance(step)
        for lease in broker.leases():
            broker.renew(lease.id, lease.token)
        broker.cycle()


def test_a_preemptible_lease_gets_notice_ends_and_its_room_goes_to_who_needed_it(
    clock: ManualClock,
) -> None:
    broker = made(clock)
    first = broker.submit("1", holder("a"), preemptible=True)
    keep(broker, clock, 900)
    second = broker.submit("1/2", holder("b", user="bob"))
    notice = broker.lease(first.lease_id).notice
    assert notice is not None
    assert (notice.kind, notice.request_id, notice.ends_at) == (
        NoticeKind.PREEMPT,
        second.id,
        clock.now + 60,
    )
    with pytest.raises(Refused, match="cannot extend"):
        broker.extend(first.lease_id, broker.lease(first.lease_id).token, 60)
    keep(broker, clock, 60)
    assert broker.lease(first.lease_id).outcome is Outcome.PREEMPTED
    assert broker.request(second.id).state is RequestState.GRANTED
    kinds = [event.kind for event in broker.events()]
    assert kinds.index(EventKind.LEASE_NOTICED) < kinds.index(EventKind.LEASE_PREEMPTED)


def test_an_idle_lease_is_reclaimed_unless_it_is_extended_or_used(
    clock: ManualClock,
) -> None:
    idle = IdlePolicy(badge_seconds=300, notice_seconds=600, reclaim_seconds=900)
    broker = made(clock, queues=(Queue(name="default", idle=idle),))
    lease_id = broker.submit("1/2", holder("a")).lease_id
    keep(broker, clock, 1200)
    assert broker.lease(lease_id).state is LeaseState.GRANTED, (
        "nobody watches it, so it is not idle"
    )
    broker.record_activity([lease_id])
    keep(broker, clock, 660)
    notice = broker.lease(lease_id).notice
    assert notice is not None
    assert notice.kind is NoticeKind.IDLE
    kept = broker.extend(lease_id, broker.lease(lease_id).token, 60)
    assert (kept.notice, kept.active_at, kept.ends_at) == (None, clock.now, None)
    keep(broker, clock, 570)
    broker.record_activity([lease_id])
    keep(broker, clock, 870)
    assert broker.lease(lease_id).is_live
    keep(broker, clock, 60)
    assert broker.lease(lease_id).outcome is Outcome.RECLAIMED


def test_what_a_user_may_not_have_is_refused_with_the_limit_and_its_end(
    clock: ManualClock,
) -> None:
    limits = {"ann": UserLimits(queued=1, hours_per_week=2.0, devices=Fraction(1, 2))}
    broker = made(clock, limits=limits, queues=(Queue(name="default", idle=None),))
    with pytest.raises(QuotaExceeded, match="a user may hold 1/2 devices at once here"):
        broker.submit("1", holder("z"))
    lease_id = broker.submit("1/2", holder("a")).lease_id
    assert broker.submit("1/4", holder("b")).state is RequestState.QUEUED
    with pytest.raises(QuotaExceeded, match="ann has 1 requests waiting"):
        broker.submit("1/4", holder("c"))
    assert broker.submit("1/4", holder("d", user="bob")).state is RequestState.GRANTED
    keep(broker, clock, 4 * HOUR)
    broker.release(lease_id, broker.lease(lease_id).token)
    for request in broker.queue():
        broker.cancel(request.id)
    with pytest.raises(
        QuotaExceeded, match="2 device-hours a user may have in a week"
    ) as error:
        broker.submit("1/4", holder("e"))
    assert error.value.facts["frees_at"] == week_start(week_of(clock.now) + 1)
    clock.now = error.value.facts["frees_at"]
    assert broker.submit("1/4", holder("e")).state is RequestState.GRANTED


def test_queues_admit_their_members_and_a_user_who_names_none_gets_theirs(
    clock: ManualClock,
) -> None:
    queues = (
        Queue(name="default"),
        Queue(name="vision", members=frozenset({"ann", "@vision"})),
    )
    broker = made(clock, queues=queues)
    assert broker.submit("1/8", holder("a")).queue == "vision"
    assert broker.submit("1/8", holder("b", user="bob")).queue == "default"
    assert (
        broker.submit(
            "1/8", holder("c", user="eve"), groups=frozenset({"vision"})
        ).queue
        == "vision"
    )
    assert broker.submit("1/8", holder("d"), queue="default").queue == "default"
    with pytest.raises(QueueClosed, match="vision is for @vision, ann, not for bob"):
        broker.submit("1/8", holder("e", user="bob"), queue="vision")
    with pytest.raises(UnknownQueue):
        broker.submit("1/8", holder("f"), queue="nowhere")


def test_reservations_are_made_kept_and_taken_back(clock: ManualClock) -> None:
    broker = made(
        clock, queues=(Queue(name="default", idle=None), Queue(name="class", idle=None))
    )
    wish = {
        "name": "lesson",
        "queue": "class",
        "spec": "1/8",
        "count": 6,
        "created_by": "root",
    }
    lesson = broker.reserve(
        **wish, starts_at=clock.now + HOUR, ends_at=clock.now + 2 * HOUR
    )  # type: ignore[arg-type]
    assert broker.reservations() == (lesson,)
    lent = broker.lease(broker.submit("1/2", holder("a")).lease_id)
    assert (lent.ends_at, conditions_text(lent.conditions)) == (
        clock.now + HOUR,
        "lent until the reservation 'lesson' begins",
    )
    with pytest.raises(
        Refused, match="3 slices of 1/8 do not fit this host beside 'lesson'; 2 do"
    ):
        broker.reserve(
            name="exam",
            queue="default",
            spec="1/8",
            count=3,
            starts_at=clock.now,
            ends_at=clock.now + 9 * HOUR,
        )
    with pytest.raises(InvalidRequest, match="ends_at"):
        broker.reserve(**wish, starts_at=clock.now, ends_at=clock.now)  # type: ignore[arg-type]
    keep(broker, clock, HOUR)
    pupils = [
        broker.submit("1/8", holder(f"p{n}", user=f"p{n}"), queue="class")
        for n in range(6)
    ]
    assert {pupil.state for pupil in pupils} == {RequestState.GRANTED}
    assert broker.unreserve(lesson.id) == lesson
    assert broker.reservations() == ()
    with pytest.raises(LeaseNotFound):
        broker.unreserve(lesson.id)


def test_all_that_waits_is_told_why_and_until_when(clock: ManualClock) -> None:
    broker = made(clock)
    broker.submit("1", holder("a", user="alice"), lease_seconds=720.0)
    broker.submit("1", holder("b", user="bob"))
    (entry,) = broker.waiting()
    assert (entry.position, entry.eta_at) == (1, clock.now + 720)
    assert (
        entry.reason
        == "needs a whole GPU; the next one frees in about 12 min when alice's lease ends"
    )
    assert "alice" not in broker.queue()[0].reason
