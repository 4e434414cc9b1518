from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.model.device import DeviceKind
from jupyter_aistack.core.model.lease import NoticeKind, Outcome
from jupyter_aistack.core.model.plan import End, Grant, Notify, WithdrawNotice
from jupyter_aistack.core.model.policy import Policy, Queue, UserLimits
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec
from tests.fakes.world import World, ask, gpus


def full_box(**fields: object) -> World:
    """One GPU, two preemptible halves that have run for an hour."""
    policy = Policy(**fields)  # type: ignore[arg-type]
    box = World(gpus(1), policy)
    box.submit(ask("old", "1/2", user="bob", preemptible=True))
    box.turn()
    box.submit(ask("young", "1/2", 1000.0, user="bob", preemptible=True))
    box.turn(1000)
    box.turn(3600)
    return box


def test_a_preemptible_lease_gets_notice_and_ends_when_that_is_over() -> None:
    box = full_box()
    box.submit(ask("new", "1/2", box.now))
    (notify,) = box.turn().actions
    assert isinstance(notify, Notify)
    assert (notify.notice.kind, notify.notice.ends_at) == (
        NoticeKind.PREEMPT,
        box.now + 60,
    )
    assert notify.detail == "1/2 is needed in queue default, which has higher priority"
    assert box.turn(59).is_empty
    todo = box.turn(1)
    assert [action.outcome for action in todo.actions if isinstance(action, End)] == [
        Outcome.PREEMPTED
    ]
    assert set(box.holds()) == {"new", "old"}


def test_the_one_that_has_run_the_shortest_goes_and_an_unused_one_before_it() -> None:
    box = full_box()
    box.submit(ask("new", "1/2", box.now))
    box.turn()
    assert box.lease_of("young").notice is not None
    box = full_box()
    lease = box.lease_of("old")
    box.leases[lease.id] = replace(lease, active_at=box.now - 3000)
    box.submit(ask("new", "1/2", box.now))
    box.turn()
    assert box.lease_of("old").notice is not None
    assert box.lease_of("young").notice is None


def test_fewest_leases_are_asked_back() -> None:
    box = World(gpus(2))
    box.submit(
        *(ask(f"small-{n}", "1/4", preemptible=True) for n in range(4)),
        ask("large", "1", preemptible=True),
    )
    box.turn()
    box.turn(3600)
    box.submit(ask("new", "1", box.now))
    assert [
        box.leases[a.lease_id].request_id
        for a in box.turn().actions
        if isinstance(a, Notify)
    ] == ["large"]


def test_a_notice_is_withdrawn_when_nobody_needs_the_room_any_more() -> None:
    box = full_box()
    box.submit(ask("new", "1/2", box.now))
    box.turn()
    del box.requests["new"]
    assert [type(action) for action in box.turn(10).actions] == [WithdrawNotice]
    assert box.turn(60).is_empty


def test_room_that_is_being_made_goes_to_the_one_it_is_made_for() -> None:
    box = full_box()
    box.submit(ask("new", "1/2", box.now))
    box.turn()
    box.submit(ask("sneak", "1/2", box.now, user="eve", preemptible=True, priority=9))
    box.turn(60)
    assert "new" in box.holds()
    assert "sneak" not in box.holds()


def test_nobody_is_preempted_before_the_minimum_runtime_or_for_a_preemptible_request() -> (
    None
):
    box = World(gpus(1))
    box.submit(ask("old", "1", preemptible=True))
    box.turn()
    box.submit(ask("new", "1", 1.0))
    assert box.turn(599).is_empty
    assert [type(action) for action in box.turn(2).actions] == [Notify]
    box = full_box()
    box.submit(ask("new", "1/2", box.now, preemptible=True))
    assert box.turn().is_empty


def test_leases_within_the_quota_of_their_queue_are_never_preempted() -> None:
    owed = Queue(name="owed", quota=Fraction(1, 2))
    box = World(gpus(1), Policy(queues=(Queue(name="default", priority=9), owed)))
    box.submit(
        *(ask(f"owed-{n}", "1/2", queue="owed", preemptible=True) for n in range(2))
    )
    box.turn()
    box.turn(3600)
    box.submit(ask("one", "1/2", box.now), ask("two", "1/2", box.now + 1))
    box.turn(2)
    assert sum(lease.notice is not None for lease in box.leases.values()) == 1
    box.turn(60)
    assert sorted(box.holds())[0] == "one"
    assert box.turn(7200).is_empty


def test_a_queue_of_lower_priority_preempts_only_for_what_it_is_owed() -> None:
    queues = (
        Queue(name="low", quota=Fraction(1, 2)),
        Queue(name="high", priority=5),
        Queue(name="lower"),
    )
    box = World(gpus(1), Policy(queues=queues))
    box.submit(*(ask(f"h{n}", "1/2", queue="high", preemptible=True) for n in range(2)))
    box.turn()
    box.turn(3600)
    box.submit(ask("lower", "1/2", box.now, queue="lower"))
    assert box.turn().is_empty
    box.submit(
        ask("low-1", "1/2", box.now, queue="low"),
        ask("low-2", "1/2", box.now + 1, queue="low"),
    )
    assert len([a for a in box.turn(2).actions if isinstance(a, Notify)]) == 1


def test_two_at_once_get_room_at_once() -> None:
    box = full_box()
    box.submit(
        ask("one", "1/2", box.now, user="ann"), ask("two", "1/2", box.now, user="eve")
    )
    box.turn()
    assert all(lease.notice for lease in box.leases.values())
    box.turn(60)
    assert set(box.holds()) == {"one", "two"}


def test_a_request_that_will_not_wait_for_the_notice_asks_nobody_back() -> None:
    box = full_box()
    box.submit(ask("new", "1/2", box.now, patience_seconds=30))
    assert box.turn().is_empty


def test_a_notice_is_withdrawn_in_the_plan_that_grants_the_request_elsewhere() -> None:
    box = full_box()
    box.submit(ask("new", "1/2", box.now))
    box.turn()
    box.release("old")
    assert {type(action) for action in box.turn().actions} == {Grant, WithdrawNotice}
    assert box.turn().is_empty
    assert set(box.holds()) == {"young", "new"}


def test_a_lease_that_its_queue_is_owed_by_now_is_let_be() -> None:
    policy = Policy(
        queues=(
            Queue(name="default", priority=1),
            Queue(name="theirs", quota=Fraction(1)),
        )
    )
    box = World(gpus(2), policy)
    box.submit(
        ask("firm", "1", queue="theirs"),
        ask("loose", "1", queue="theirs", preemptible=True),
    )
    box.turn()
    box.submit(ask("new", "1", 3600.0), ask("newer", "1", 3600.0))
    box.turn(3600)
    assert box.lease_of("loose").notice is not None
    box.release("firm")
    box.turn(30)
    assert box.lease_of("loose").notice is None
    box.turn(60)
    assert set(box.holds()) == {"loose", "new"}


def test_no_more_is_asked_back_than_the_limits_of_the_one_who_asks_allow() -> None:
    box = full_box(limits={"ann": UserLimits(slices=1)})
    box.submit(ask("new-1", "1/2", box.now), ask("new-2", "1/2", box.now))
    assert [type(action) for action in box.turn().actions] == [Notify]
    box.turn(60)
    box.turn(60)
    assert set(box.holds()) == {"old", "new-1"}


def test_nobody_is_asked_back_for_one_who_would_still_lack_cores() -> None:
    cpu = replace(gpus(1)[0], id="CPU", kind=DeviceKind.CPU, cores=tuple(range(8)))
    box = World((*gpus(1), cpu))
    box.submit(ask("cores", "cpu:6"), ask("loose", "1", preemptible=True))
    box.turn()
    box.submit(ask("new", "1/2,cpu:4", 3600.0))
    assert box.turn(3600).is_empty


def test_nobody_is_asked_back_for_room_that_is_reserved_for_others() -> None:
    lesson = Reservation(
        id="v",
        name="lesson",
        queue="class",
        spec=parse_spec("1/2"),
        count=1,
        starts_at=0.0,
        ends_at=9000.0,
    )
    policy = Policy(queues=(Queue(name="default"), Queue(name="class")))
    box = World(gpus(1), policy, (lesson,))
    box.submit(ask("loose", "1/2", preemptible=True))
    box.turn()
    box.submit(ask("new", "1", 3600.0))
    assert box.turn(3600).is_empty


def test_another_queue_may_ask_back_for_the_same_shape_that_a_lower_one_could_not() -> (
    None
):
    queues = (
        Queue(name="default"),
        Queue(name="low", priority=-1),
        Queue(name="high", priority=1),
    )
    box = World(gpus(1), Policy(queues=queues))
    box.submit(ask("loose", "1", preemptible=True))
    box.turn()
    box.submit(
        ask("aged", "1", 1.0, queue="low"),
        ask("new", "1", 90000.0, queue="high", user="bob"),
    )
    (notify,) = box.turn(90000).actions
    assert isinstance(notify, Notify)
    assert notify.notice.request_id == "new"


def test_what_is_granted_meanwhile_is_no_room_to_come() -> None:
    box = World(gpus(2))
    box.submit(ask("a", "1", preemptible=True), ask("b", "1/2", preemptible=True))
    box.turn()
    box.submit(
        *(
            ask(f"new-{n}", spec, 3600.0 + n)
            for n, spec in enumerate(("1", "1/2", "1/2"))
        )
    )
    box.turn(3700)
    assert box.turn().is_empty


def test_leases_of_a_queue_asked_back_for_its_own_requests_leave_it_what_it_is_owed() -> (
    None
):
    box = World(gpus(2), Policy(queues=(Queue(name="default", quota=Fraction(1)),)))
    box.submit(*(ask(f"loose-{n}", "1", preemptible=True) for n in range(2)))
    box.turn()
    box.submit(*(ask(f"new-{n}", "1", 3600.0) for n in range(2)))
    assert [type(action) for action in box.turn(3600).actions] == [Notify]
    assert box.turn(30).is_empty


def test_nobody_is_asked_back_for_a_place_that_will_be_reserved_when_it_is_free() -> (
    None
):
    lesson = Reservation(
        id="v",
        name="lesson",
        queue="class",
        spec=parse_spec("1"),
        count=1,
        starts_at=4250.0,
        ends_at=9000.0,
    )
    box = World(
        gpus(1), Policy(queues=(Queue(name="default"), Queue(name="class"))), (lesson,)
    )
    box.submit(ask("loose", "1", lease_seconds=4250.0, preemptible=True))
    box.turn()
    box.submit(ask("new", "1", 3600.0))
    assert box.turn(3600).is_empty


def test_nobody_is_asked_back_for_room_that_a_reservation_will_take_when_it_is_free() -> (
    None
):
    lesson = Reservation(
        id="v",
        name="lesson",
        queue="class",
        spec=parse_spec("1"),
        count=1,
        starts_at=1000.0,
        ends_at=9000.0,
    )
    box = World(gpus(1), Policy(queues=(Queue(name="default"), Queue(name="class"))))
    box.submit(ask("loose", "1", preemptible=True))
    box.turn()
    box.reservations = (lesson,)
    box.submit(ask("new", "1", 3600.0))
    assert box.turn(3600).is_empty
    box.submit(ask("pupil", "1", 3600.0, queue="class", user="pupil"))
    box.turn(60)
    box.turn(60)
    assert set(box.holds()) == {"pupil"}
