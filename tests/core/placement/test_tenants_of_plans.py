"""Where a GPU is one user's at a time, two users never share one: not by a grant, a
preemption or a return from suspension, and nobody waits for ever.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.model.lease import NoticeKind
from jupyter_aistack.core.model.policy import GpuSharing, Policy, Queue, SuspendPolicy
from jupyter_aistack.core.scheduling.forecast import forecast
from tests.fakes.world import World, ask, gpus

QUEUES = (
    Queue(name="default", suspend=True),
    Queue(name="high", priority=1, suspend=True),
)
ALONE = Policy(queues=QUEUES, gpu_sharing=GpuSharing.SAME_USER)
USERS = st.sampled_from(["ann", "bob", "eve"])
ASKING = st.fixed_dictionaries(
    {
        "user": USERS,
        "spec": st.sampled_from(["1/4", "1/2", "1", "2"]),
        "queue": st.sampled_from(["default", "high"]),
        "preemptible": st.booleans(),
        "lease_seconds": st.sampled_from([None, 500.0, 5000.0]),
    }
)
STEPS = st.lists(
    st.one_of(
        ASKING,
        st.sampled_from(["release", "moved"]),
        st.sampled_from([10.0, 700.0, 4000.0]),
    ),
    max_size=25,
)


def users_by_device(world: World) -> dict[str, set[str]]:
    users: dict[str, set[str]] = {}
    for lease in world.leases.values():
        for slice_ in lease.slices:
            users.setdefault(slice_.device_id, set()).add(lease.holder.user)
    return users


def check_alone(world: World) -> None:
    world.check_room()
    shared = {i: who for i, who in users_by_device(world).items() if len(who) > 1}
    assert shared == {}


@settings(deadline=None, max_examples=30)
@given(steps=STEPS, suspends=st.booleans())
def test_two_users_never_share_a_gpu(steps: list[Any], suspends: bool) -> None:
    world = World(gpus(2), ALONE)
    if suspends:
        world.suspend = SuspendPolicy(context_bytes=0)
        world.host_bytes = 1 << 50
    for number, step in enumerate(steps):
        if isinstance(step, dict):
            world.submit(ask(f"r{number}", at=world.now, **step))
        elif step == "release" and world.leases:
            world.release(next(iter(world.leases.values())).request_id)
        elif isinstance(step, float):
            world.now += step
        world.turn()
        check_alone(world)
        forecast(world.snapshot(), world.now)
    # All who are there give back what they have, until nobody waits.
    for _ in range(2 * len(steps) + 2):
        for lease in list(world.leases.values()):
            world.release(lease.request_id)
        world.turn(1.0)
        check_alone(world)
    assert world.requests == {}


def test_the_forecast_knows_when_another_user_s_gpu_is_left() -> None:
    world = World(gpus(1), ALONE)
    world.submit(ask("first", "1/4", user="ann", lease_seconds=600.0))
    world.turn()
    world.submit(ask("other", "1/4", user="bob"), ask("own", "1/4", user="ann"))
    world.turn(10.0)
    # Who came first is not passed by the user who is there.
    assert world.holds().keys() == {"first"}
    waiting = {each.request.id: each for each in forecast(world.snapshot(), world.now)}
    assert waiting["other"].eta_at == pytest.approx(600.0)


def test_all_leases_of_the_other_user_are_preempted_or_none() -> None:
    world = World(gpus(1), ALONE)
    world.submit(
        *(ask(f"batch-{n}", "1/4", user="bob", preemptible=True) for n in range(3))
    )
    world.turn()
    world.submit(ask("wanted", "1/4", 3600.0, user="ann", queue="high"))
    world.turn(3600.0)
    notices = [lease.notice for lease in world.leases.values()]
    assert [notice and notice.kind for notice in notices] == [NoticeKind.PREEMPT] * 3
    world.turn(61.0)
    assert world.holds() == {"wanted": "1/4"}


def test_one_lease_that_stays_keeps_all_others_from_being_preempted() -> None:
    world = World(gpus(1), ALONE)
    world.submit(
        ask("loose", "1/4", user="bob", preemptible=True),
        ask("firm", "1/4", user="bob"),
    )
    world.turn()
    world.submit(ask("wanted", "1/4", 3600.0, user="ann", queue="high"))
    world.turn(3600.0)
    assert [lease.notice for lease in world.leases.values()] == [None, None]
    world.release("firm")
    world.turn()
    assert [lease.notice is not None for lease in world.leases.values()] == [True]


def test_a_suspended_lease_keeps_its_gpu_for_its_user() -> None:
    world = World(gpus(1), ALONE)
    world.suspend = SuspendPolicy(context_bytes=0)
    world.host_bytes = 1 << 50
    world.submit(ask("idle", "1", user="bob"))
    world.turn()
    world.submit(ask("wanted", "1", 4000.0, user="ann"))
    world.turn(4000.0)
    assert world.holds() == {"idle": "1"}
    state = world.leases["l1"].residence
    assert state is None or state.phase is not StatePhase.PARKED
    check_alone(world)


def test_any_user_shares_by_default() -> None:
    world = World(gpus(1))
    world.submit(ask("first", "1/4", user="ann"), ask("second", "1/4", user="bob"))
    world.turn()
    assert world.holds() == {"first": "1/4", "second": "1/4"}
