"""Whole plans of hosts whose idle kernels may be suspended: who goes for whom, and what
must hold whatever happens.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_aistack.core.model import device_state as steps
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    RequestedAction,
    StatePhase,
    SuspendMethod,
)
from jupyter_aistack.core.model.lease import Lease, LeaseState, NoticeKind
from jupyter_aistack.core.model.plan import (
    End,
    Grant,
    Notify,
    TransferAction,
    WithdrawNotice,
)
from jupyter_aistack.core.model.policy import Policy, Queue, SuspendPolicy, UserLimits
from jupyter_aistack.core.model.request import HolderKind
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.scheduling.forecast import forecast
from jupyter_aistack.core.suspend.transfers import MOST_LEAVING
from jupyter_aistack.exceptions import LeaseError
from tests.fakes.world import World, ask, gpus

QUEUES = (
    Queue(name="default", suspend=True),
    Queue(name="plain"),
    Queue(name="first", suspend=True, priority=5),
)
POLICY = Policy(queues=QUEUES, min_runtime_seconds=0.0)
WARM = SuspendPolicy().warm_seconds


class Notebooks(World):
    """A host whose kernels may be suspended; its movers and cells do what the test
    says.
    """

    def __init__(self, count: int = 1, *, host: int = 1000, **device: Any) -> None:
        super().__init__(gpus(count, **device), POLICY)
        self.suspend, self.host_bytes = SuspendPolicy(), host * GIB

    def start(self, name: str, spec: str = "1/2", **fields: Any) -> Lease:
        """A kernel that runs, and that its server says can be suspended, used now."""
        self.submit(ask(name, spec, self.now, **fields))
        self.turn()
        return self.see(name)

    def see(self, name: str) -> Lease:
        lease = replace(self.lease_of(name), state=LeaseState.ACTIVE)
        self.leases[lease.id] = lease
        if lease.residence is not None:
            self.update_device_state(
                lease, lambda item: steps.with_pin_reason(item, "")
            )
        return self.lease_of(name)

    def step(self, name: str, change: Any) -> None:
        self.update_device_state(self.lease_of(name), change)

    def begin(self, name: str) -> None:
        self.step(name, lambda item: steps.cell_begins(item, self.now))

    def end(self, name: str) -> None:
        self.step(name, lambda item: steps.cell_ends(item, self.now))

    def moved(self, lease: Lease, state_bytes: int | None = None) -> None:
        """What was on its way is where it was to go."""
        assert lease.residence is not None
        if lease.residence.phase is StatePhase.PARKING:
            size = lease.slices[0].memory_bytes if state_bytes is None else state_bytes
            self.update_device_state(
                lease,
                lambda item: steps.suspended(
                    item, state_bytes=size, tier=SuspendMethod.CHECKPOINT
                ),
            )
            self._state(lease.id, LeaseState.SUSPENDED)
        elif lease.residence.phase is StatePhase.RESTORING:
            self.update_device_state(lease, lambda item: steps.resumed(item, self.now))
            self._state(lease.id, LeaseState.ACTIVE)

    def _state(self, lease_id: str, state: LeaseState) -> None:
        self.leases[lease_id] = replace(self.leases[lease_id], state=state)

    def moving(self) -> list[Lease]:
        phases = (StatePhase.PARKING, StatePhase.RESTORING)
        return [
            lease
            for lease in self.leases.values()
            if lease.residence and lease.residence.phase in phases
        ]

    def move(self) -> list[str]:
        """All that is on its way arrives, and then there is another plan; who that
        was.
        """
        moving = self.moving()
        for lease in moving:
            self.moved(lease)
        self.turn()
        return [lease.request_id for lease in moving]

    def park(self, name: str, state_bytes: int | None = None) -> None:
        """Its user has it suspended."""
        self.step(
            name,
            lambda item: steps.request_action(item, RequestedAction.SUSPEND, self.now),
        )
        self.turn()
        self.moved(self.lease_of(name), state_bytes)
        self.turn()
        assert self.home(name).phase is StatePhase.PARKED

    def phases(self) -> dict[str, str]:
        homes = {lease.request_id: lease.residence for lease in self.leases.values()}
        return {
            name: home.phase.value for name, home in homes.items() if home is not None
        }


def acts(box: Notebooks, seconds: float = 0.0) -> list[tuple[str, str]]:
    """The moves of a turn."""
    todo = box.turn(seconds)
    names = {lease.id: lease.request_id for lease in box.leases.values()}
    return [
        (action.direction.value, names[action.lease_id])
        for action in todo.actions
        if isinstance(action, TransferAction)
    ]


# -- who is granted a residence --------------------------------------------------------


def test_a_kernel_on_gpus_in_a_queue_that_suspends_has_a_residence_and_stays_until_it_was_looked_at() -> (
    None
):
    box = Notebooks()
    box.submit(ask("a", "1/4"))
    box.turn(5.0)
    assert box.home("a") == steps.unchecked(5.0)


@pytest.mark.parametrize("case", ["queue", "process", "off", "mig", "cpu"])
def test_nobody_else_has_one(case: str) -> None:
    box = Notebooks()
    request = ask("a", "1/4", queue="plain" if case == "queue" else "default")
    if case == "process":
        request = replace(
            request, holder=replace(request.holder, kind=HolderKind.PROCESS)
        )
    elif case == "off":
        box.suspend = None
    elif case == "mig":
        from jupyter_aistack.core.model.device import MIGInstance
        from jupyter_aistack.core.model.spec import parse_spec

        instance = MIGInstance(uuid="MIG-1", profile="1g.10gb", memory_bytes=10 * GIB)
        devices = tuple(
            replace(device, mig=(instance,), mig_enabled=True)
            for device in box.inventory.devices
        )
        box.inventory = replace(box.inventory, devices=devices)
        request = replace(request, spec=parse_spec("1g.10gb"))
    elif case == "cpu":
        from jupyter_aistack.core.model.device import DeviceKind
        from jupyter_aistack.core.model.spec import parse_spec

        cpu = Device(
            id="CPU",
            host="testbox",
            kind=DeviceKind.CPU,
            index=0,
            name="CPU",
            memory_bytes=GIB,
            cores=(0, 1),
        )
        box.inventory = replace(box.inventory, devices=(*box.inventory.devices, cpu))
        request = replace(request, spec=parse_spec("cpu:1"))
    box.submit(request)
    box.turn()
    assert box.lease_of("a").residence is None


# -- who goes for whom -----------------------------------------------------------------


def test_the_least_recently_used_go_for_a_request_that_does_not_fit_one_after_the_other() -> (
    None
):
    box = Notebooks()
    box.start("a", "1/4")
    box.now = 10.0
    box.start("b", "1/4")
    box.now = 20.0
    box.start("c", "1/2")
    box.submit(ask("new", "1/2", 21.0))
    assert acts(box, WARM - 20.0) == []  # a has rested, which alone is not enough
    assert acts(box, 10.0) == [("suspend", "a")]
    assert (box.move(), box.move()) == (["a"], ["b"])
    assert set(box.holds()) == {"a", "b", "c", "new"}
    assert box.home("c").phase is StatePhase.RESIDENT


def test_nobody_goes_whose_room_is_not_needed_once_another_goes() -> None:
    box = Notebooks()
    box.start("a", "1/4")
    box.now = 20.0
    box.start("c", "1/2")
    box.start("d", "1/4")
    box.begin("d")
    box.submit(ask("new", "1/2", 21.0))
    assert acts(box, WARM) == [("suspend", "c")]


def test_two_that_must_go_from_one_device_go_one_at_a_time_and_nobody_slips_in_between() -> (
    None
):
    box = Notebooks()
    box.start("a", "1/2")
    box.start("b", "1/2")
    box.submit(ask("new", "1", 1.0))
    assert acts(box, WARM) == [("suspend", "a")]
    box.submit(ask("small", "1/4", 2.0))
    assert (box.move(), box.move()) == (["a"], ["b"])
    assert set(box.holds()) == {"a", "b", "new"}


def test_no_more_are_suspended_than_the_request_needs_and_those_of_other_requests_are_not_counted_twice() -> (
    None
):
    box = Notebooks(2)
    for name in "abcd":
        box.start(name, "1/2")
    box.submit(ask("x", "1/2", 1.0), ask("y", "1/2", 2.0))
    assert sorted(acts(box, WARM)) == [("suspend", "a"), ("suspend", "c")]
    box.move()
    assert {"x", "y"} <= box.holds().keys()


def test_not_too_many_go_at_once_and_nobody_is_asked_back_meanwhile() -> None:
    box = Notebooks(MOST_LEAVING + 2, host=10_000)
    for number in range(MOST_LEAVING + 2):
        box.start(f"a{number}", "1", preemptible=True)
    box.submit(
        *(
            ask(f"b{number}", "1", 1.0, queue="first")
            for number in range(MOST_LEAVING + 2)
        )
    )
    todo = box.turn(WARM)
    assert [type(action) for action in todo.actions] == [TransferAction] * MOST_LEAVING
    assert box.turn().is_empty
    box.move()
    assert len(box.moving()) == 2


def test_idle_ones_are_suspended_before_anybody_is_asked_back() -> None:
    box = Notebooks()
    box.start("idle", "1/2")
    box.start("busy", "1/2", preemptible=True)
    box.begin("busy")
    box.submit(ask("new", "1/2", 1.0, queue="first"))
    todo = box.turn(WARM)
    assert [type(action) for action in todo.actions] == [TransferAction]


def test_room_that_a_suspended_one_wants_is_not_granted_to_others() -> None:
    box = Notebooks()
    box.start("a", "1/2")
    box.park("a", 30 * GIB)
    box.start("b", "1/2")
    box.start("c", "1/2")
    box.begin("c")
    box.begin("a")  # b and c are there; b has not rested yet
    box.submit(ask("new", "1/4", 1.0, queue="first"))
    assert acts(box, 1.0) == []
    box.release("b")
    assert acts(box) == [("resume", "a")]
    assert "new" not in box.holds()


def test_nobody_goes_for_a_request_that_could_be_in_the_way_of_those_who_must_come_back() -> (
    None
):
    box = Notebooks()
    box.start("a", "3/4")
    box.submit(
        ask("script", "1/2", 1.0, queue="plain")
    )  # it would stay, and a could never come back
    assert acts(box, WARM) == []
    assert "script" not in box.holds()
    assert box.home("a").phase is StatePhase.RESIDENT


def test_who_would_stay_for_good_is_not_granted_what_a_suspended_one_needs() -> None:
    box = Notebooks()
    box.start("a", "3/4")
    box.park("a")
    box.submit(ask("script", "1/2", 1.0, queue="plain"), ask("kernel", "1/4", 2.0))
    box.turn(1.0)
    assert set(box.holds()) == {"a", "kernel"}


def test_what_the_driver_says_is_not_free_is_not_granted() -> None:
    box = Notebooks()
    box.start("a", "1/2")
    box.park("a")

    def free(gibibytes: int) -> None:
        devices = tuple(
            replace(device, free_bytes=gibibytes * GIB)
            for device in box.inventory.devices
        )
        box.inventory = replace(box.inventory, devices=devices)

    free(30)  # it has not left yet, whatever was said
    box.submit(ask("new", "1/2", 1.0))
    box.turn(1.0)
    assert "new" not in box.holds()
    free(79)
    box.turn()
    assert "new" in box.holds()


# -- what they are told ----------------------------------------------------------------


def told(box: Notebooks) -> dict[str, tuple[str, str]]:
    """Why each request waits, with names and without."""
    return {
        each.request.id: (each.reason, each.public_reason)
        for each in forecast(box.snapshot(), box.now)
    }


def test_who_waits_is_told_who_is_being_suspended() -> None:
    box = Notebooks()
    box.start("a", "1/2")
    box.start("b", "1/2")
    box.submit(ask("new", "1/2", 1.0, user="bob"))
    box.turn(WARM)
    assert told(box)["new"] == (
        "needs 1/2 of a GPU; waits for a.ipynb (ann) to be suspended: 40.0 GiB",
        "needs 1/2 of a GPU; waits for an idle kernel to be suspended: 40.0 GiB",
    )


def test_who_is_not_let_in_though_there_is_room_is_told_that_it_is_promised() -> None:
    box = Notebooks()
    box.start("a", "3/4")
    box.park("a")
    box.submit(ask("script", "1/2", 1.0, queue="plain"))
    box.turn(1.0)
    assert "is promised to others" in told(box)["script"][1]


# -- idle, asked back, over ------------------------------------------------------------


def test_who_is_idle_for_long_is_suspended_and_neither_told_nor_reclaimed() -> None:
    box = Notebooks()
    lease = box.start("a")
    box.use("a")
    assert acts(box, 30 * 60.0) == [("suspend", "a")]
    box.move()
    for _ in range(5):
        assert not box.turn(3600.0).actions
    assert box.holds() == {"a": "1/2"}
    assert box.lease_of("a").notice is None
    assert lease.id in box.leases


def test_who_is_kept_or_cannot_be_suspended_is_reclaimed_as_ever() -> None:
    box = Notebooks()
    box.start("a")
    box.use("a")
    box.step("a", lambda item: steps.pin(item, True))
    assert [type(action) for action in box.turn(55 * 60.0).actions] == [Notify]
    box.step("a", lambda item: steps.pin(item, False))
    todo = box.turn(1.0)
    assert [type(action) for action in todo.actions] == [
        WithdrawNotice,
        TransferAction,
    ]  # it goes instead
    box.move()
    assert box.turn(3600.0).is_empty


def test_who_the_host_has_no_memory_for_is_reclaimed_as_ever() -> None:
    box = Notebooks(host=39)
    box.start("a", "1/2")
    box.use("a")
    box.turn(55 * 60.0)
    assert [
        action.outcome.value
        for action in box.turn(300.0).actions
        if isinstance(action, End)
    ] == ["reclaimed"]


def test_who_was_asked_back_is_suspended_rather_than_ended_as_soon_as_it_is_idle() -> (
    None
):
    box = Notebooks()
    box.start("a", "1/2", preemptible=True)
    box.start("b", "1/2", preemptible=True)
    box.begin("a")
    box.begin("b")
    box.submit(ask("new", "1/2", 1.0, queue="first"))
    todo = box.turn(WARM)
    (notice,) = [action for action in todo.actions if isinstance(action, Notify)]
    asked_back = box.leases[notice.lease_id]
    assert asked_back.notice is not None
    assert asked_back.notice.kind is NoticeKind.PREEMPT
    box.now += WARM - 1.0
    box.end(asked_back.request_id)
    assert acts(box) == [("suspend", asked_back.request_id)]  # it need not rest
    assert box.turn(2.0).is_empty  # its notice is over, but it is leaving
    assert box.move() == [asked_back.request_id]
    assert box.lease_of(asked_back.request_id).notice is None
    assert "new" in box.holds()
    assert asked_back.id in box.leases


def test_who_runs_a_cell_until_its_notice_is_over_ends() -> None:
    box = Notebooks()
    box.start("a", "1", preemptible=True)
    box.begin("a")
    box.submit(ask("new", "1", 1.0, queue="first"))
    box.turn(WARM)
    assert [type(action) for action in box.turn(60.0).actions] == [End, Grant]


def test_a_suspended_lease_ends_when_its_time_is_up() -> None:
    box = Notebooks()
    box.start("a", "1/2", lease_seconds=7200.0)
    box.park("a")
    assert [
        action.outcome.value
        for action in box.turn(7200.0).actions
        if isinstance(action, End)
    ] == ["expired"]


def test_limits_and_quotas_count_what_is_on_a_device() -> None:
    box = Notebooks(2)
    box.policy = replace(
        POLICY, queues=(Queue(name="default", suspend=True, limit=Fraction(1)),)
    )
    box.start("a", "1")
    box.park("a")
    box.start("b", "1")
    assert set(box.holds()) == {"a", "b"}


@pytest.mark.parametrize("whose", ["queue", "user"])
def test_a_limit_is_kept_to_by_suspending_idle_ones_of_ones_own(whose: str) -> None:
    box = Notebooks(2)
    limit = Fraction(1) if whose == "queue" else None
    queues = (
        Queue(name="default", suspend=True, limit=limit),
        Queue(name="first", suspend=True),
    )
    box.policy = Policy(
        queues=queues,
        limits={"ann": UserLimits(devices=Fraction(1))} if whose == "user" else {},
    )
    box.start("other", "1/2", queue="first", user="bob")
    box.start("a", "1/2")
    box.start("b", "1/2")
    box.submit(ask("new", "1/4", 1.0))
    assert acts(box, WARM) == [("suspend", "a")]
    assert box.move() == ["a"]
    assert set(box.holds()) == {"other", "a", "b", "new"}


def test_nobody_goes_for_a_limit_that_would_still_be_reached() -> None:
    box = Notebooks(2)
    box.policy = Policy(
        queues=(Queue(name="default", suspend=True, limit=Fraction(1)),)
    )
    box.start("a", "1/2")
    box.start("b", "1/2")
    box.begin("b")
    box.submit(ask("new", "3/4", 1.0))
    assert acts(box, WARM) == []


def test_a_lost_state_takes_no_room_and_its_new_process_waits_for_some() -> None:
    box = Notebooks()
    box.start("a", "1")
    box.park("a")
    box.begin("a")
    box.turn()
    box.step("a", lambda item: steps.mark_lost(item, "out of memory"))
    box.start("b", "1")
    box.step("a", lambda item: steps.reset_for_new_process(item, box.now))
    box.see("a")
    box.begin("a")
    assert acts(box, WARM) == [("suspend", "b")]
    assert (box.move(), box.move()) == (["b"], ["a"])
    assert box.home("a").is_busy


def test_a_device_that_does_not_answer_moves_nobody() -> None:
    box = Notebooks(2)
    box.start("a", "1")
    box.start("b", "1")
    box.park("b")
    box.begin("b")
    broken = tuple(
        replace(device, problem="fell off the bus") for device in box.inventory.devices
    )
    healthy, box.inventory = box.inventory, replace(box.inventory, devices=broken)
    assert acts(box, 3600.0) == []
    box.inventory = healthy
    assert sorted(acts(box)) == [("resume", "b"), ("suspend", "a")]


# -- whatever happens ------------------------------------------------------------------

SPECS = st.sampled_from(["1/8", "1/4", "1/3", "1/2", "3/4", "1", "2", "1/2x2", "10GiB"])
REQUESTS = st.tuples(
    SPECS, st.sampled_from(["default", "default", "first", "plain"]), st.booleans()
)
OFTEN = ["ask", "begin", "end", "moved", "moved", "moved", "later", "later"]
SELDOM = ["failed", "lost", "anew", "keep", "suspend", "resume", "release"]
HAPPENINGS = st.lists(
    st.tuples(st.sampled_from(3 * OFTEN + SELDOM), st.integers(0, 11), REQUESTS),
    min_size=15,
    max_size=60,
)


def happen(
    box: Notebooks, kind: str, number: int, request: tuple[str, str, bool]
) -> None:
    """One thing that users, movers or time may do."""
    if kind == "later":
        box.now += 45.0
        return
    if kind == "ask":
        spec, queue, preemptible = request
        box.submit(ask(f"r{len(box.requests) + len(box.leases) + len(box.ended)}", spec, box.now, queue=queue,
                       preemptible=preemptible))  # fmt: skip
        return
    able = sorted(box.leases.values(), key=lambda lease: lease.token)
    if not able:
        return
    lease = able[number % len(able)]
    if kind == "release":
        box.release(lease.request_id)
    elif lease.residence is not None:
        update_device_state(box, kind, lease, lease.residence)


def update_device_state(
    box: Notebooks, kind: str, lease: Lease, home: DeviceState
) -> None:
    now = box.now
    if kind == "moved":
        box.moved(lease, lease.slices[0].memory_bytes // 3 if lease.token % 2 else None)
        return
    changes = {
        ("failed", StatePhase.PARKING): lambda item: steps.suspend_failed(
            item, now, "it could not be locked"
        ),
        ("failed", StatePhase.RESTORING): lambda item: steps.resume_failed(
            item, "too little memory"
        ),
        ("lost", StatePhase.RESTORING): lambda item: steps.mark_lost(
            item, "out of memory"
        ),
        "anew": lambda item: steps.with_pin_reason(
            steps.reset_for_new_process(item, now), ""
        ),
        "keep": lambda item: steps.pin(item, not item.is_kept),
        "begin": lambda item: steps.cell_begins(item, now),
        "end": lambda item: steps.cell_ends(item, now),
        "suspend": lambda item: steps.request_action(
            item, RequestedAction.SUSPEND, now
        ),
        "resume": lambda item: steps.request_action(item, RequestedAction.RESUME, now),
    }
    change = changes.get((kind, home.phase)) or changes.get(kind)
    if change is not None:
        with contextlib.suppress(LeaseError):
            box.update_device_state(lease, change)


def turn(box: Notebooks) -> None:
    """A plan, what must hold after it, and that another would do nothing."""
    box.turn()
    on_device = [
        each
        for each in box.leases.values()
        if each.residence is None or on_its_device(each.residence)
    ]
    for device in box.inventory.devices:
        pieces = [
            p for lease in on_device for p in lease.slices if p.device_id == device.id
        ]
        assert sum((p.fraction for p in pieces), Fraction(0)) <= 1
        assert sum(p.memory_bytes for p in pieces) <= device.memory_bytes
        assert (
            sum(
                any(p.device_id == device.id for p in lease.slices)
                for lease in box.moving()
            )
            <= 1
        )
    assert parked_bytes(box) <= box.host_bytes
    assert box.turn().is_empty


def on_its_device(home: DeviceState) -> bool:
    return home.phase in (StatePhase.RESIDENT, StatePhase.PARKING, StatePhase.RESTORING)


def parked_bytes(box: Notebooks) -> int:
    total = 0
    for lease in box.leases.values():
        home = lease.residence
        if home is not None and home.phase in (
            StatePhase.PARKED,
            StatePhase.PARKING,
            StatePhase.RESTORING,
        ):
            size = (
                lease.slices[0].memory_bytes
                if home.state_bytes is None
                else home.state_bytes
            )
            total += size * len(lease.slices)
    return total


def lived(
    happenings: list[tuple[str, int, tuple[str, str, bool]]], box: Notebooks
) -> None:
    for kind, number, request in happenings:
        happen(box, kind, number, request)
        turn(box)
        for lease in list(box.leases.values()):
            if lease.residence is not None and not lease.residence.is_checked:
                box.see(lease.request_id)


def settle(box: Notebooks) -> None:
    """Cells end and what moves arrives, until nothing changes any more."""
    for _ in range(12 * (len(box.leases) + len(box.requests) + 1)):
        for lease in list(box.leases.values()):
            if lease.residence is not None:
                if not lease.residence.is_checked:
                    lease = box.see(lease.request_id)
                box.moved(lease)
                if (box.leases[lease.id].residence or DeviceState()).is_busy:
                    box.end(lease.request_id)
        box.now += SuspendPolicy().longest_retry_seconds
        turn(box)


@settings(max_examples=120, deadline=None)
@given(happenings=HAPPENINGS, host=st.sampled_from([0, 50, 120, 1000]))
def test_never_over_budget_one_move_at_a_time_and_a_plan_leaves_nothing_undone(
    happenings: list[tuple[str, int, tuple[str, str, bool]]], host: int
) -> None:
    box = Notebooks(2, host=host)
    lived(happenings, box)


@settings(max_examples=80, deadline=None)
@given(happenings=HAPPENINGS)
def test_nobody_waits_for_ever_once_cells_end(
    happenings: list[tuple[str, int, tuple[str, str, bool]]],
) -> None:
    """Nobody keeps anything to oneself here: then whoever wants to come back does, and
    every request is granted.
    """
    box = Notebooks(2, host=100_000)
    fair = [
        (kind, n, (spec, "default", False))
        for kind, n, (spec, _, _) in happenings
        if kind != "keep"
    ]
    lived(fair, box)
    settle(box)
    waiting = [
        lease.request_id
        for lease in box.leases.values()
        if lease.residence and lease.residence.wanted_at
    ]
    assert (waiting, sorted(box.requests)) == ([], [])
