"""The steps that the device state of a lease may take."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.model import device_state as steps
from jupyter_aistack.core.model.device_state import (
    DeviceState,
    DisplayState,
    RequestedAction,
    StatePhase,
    SuspendMethod,
)
from jupyter_aistack.exceptions import LeaseError

HERE = DeviceState(active_at=5.0)
PARKED = steps.suspended(
    steps.begin_suspend(HERE), state_bytes=7, tier=SuspendMethod.CHECKPOINT
)


def test_a_cell_runs_where_the_state_is_there() -> None:
    busy = steps.cell_begins(HERE, 10.0)
    assert (busy.is_busy, busy.active_at, busy.wanted_at) == (True, 10.0, None)
    idle = steps.cell_ends(busy, 20.0)
    assert (idle.is_busy, idle.active_at) == (False, 20.0)


def test_a_cell_waits_for_what_is_parked_and_goes_on_once_it_is_back() -> None:
    waits = steps.cell_begins(PARKED, 10.0)
    assert (waits.is_busy, waits.wanted_at) == (False, 10.0)
    assert steps.cell_begins(waits, 12.0) == waits
    back = steps.resumed(steps.begin_resume(waits), 15.0)
    assert (back.phase, back.is_busy, back.wanted_at, back.state_bytes) == (
        StatePhase.RESIDENT,
        True,
        None,
        None,
    )


def test_a_cell_that_gives_up_waiting_is_not_wanted_any_more_and_was_no_use() -> None:
    assert steps.cell_ends(steps.cell_begins(PARKED, 10.0), 20.0) == PARKED


def test_a_cell_that_begins_while_its_state_moves_out_waits_for_it() -> None:
    waits = steps.cell_begins(steps.begin_suspend(HERE), 10.0)
    assert (waits.phase, waits.wanted_at) == (StatePhase.PARKING, 10.0)
    assert (
        steps.suspended(waits, state_bytes=1, tier=SuspendMethod.OFFLOAD).wanted_at
        == 10.0
    )
    stayed = steps.suspend_failed(waits, 11.0, "it could not be locked")
    assert (stayed.phase, stayed.is_busy, stayed.wanted_at, stayed.failures) == (
        StatePhase.RESIDENT,
        True,
        None,
        1,
    )


def test_a_return_that_does_not_succeed_may_be_tried_again_and_a_lost_state_may_not() -> (
    None
):
    again = steps.resume_failed(steps.begin_resume(PARKED), "no room")
    assert (again.phase, again.state_bytes, again.note) == (
        StatePhase.PARKED,
        7,
        "no room",
    )
    lost = steps.mark_lost(
        steps.begin_resume(PARKED), "the driver could not restore it"
    )
    assert steps.display_state(lost) is DisplayState.LOST
    assert steps.cell_begins(lost, 30.0) == lost
    with pytest.raises(LeaseError, match="restart the kernel"):
        steps.request_action(lost, RequestedAction.RESUME, 30.0)


@pytest.mark.parametrize(
    "before",
    [HERE, steps.begin_suspend(HERE), steps.begin_resume(PARKED)],
    ids=["here", "out", "in"],
)
def test_a_new_process_is_looked_at_anew_and_keeps_the_room_there_is(
    before: DeviceState,
) -> None:
    assert steps.reset_for_new_process(before, 40.0) == steps.unchecked(40.0)


def test_a_process_is_unchecked_until_its_server_gives_a_reason_or_none() -> None:
    new = steps.unchecked(40.0)
    assert (new.is_checked, new.pinned) == (False, steps.NOT_CHECKED)
    assert steps.with_pin_reason(new, "").is_checked
    assert steps.with_pin_reason(new, steps.NOT_CHECKED).is_checked


@pytest.mark.parametrize(
    "before", [PARKED, steps.mark_lost(PARKED, "gone")], ids=["parked", "lost"]
)
def test_a_new_process_without_room_waits_for_it_and_has_nothing_to_bring_back(
    before: DeviceState,
) -> None:
    anew = steps.reset_for_new_process(before, 40.0)
    assert (anew.phase, anew.state_bytes, anew.tier, anew.note) == (
        StatePhase.PARKED,
        0,
        SuspendMethod.OFF,
        "",
    )
    assert anew.is_away
    back = steps.resumed(steps.begin_resume(steps.cell_begins(anew, 50.0)), 51.0)
    assert (back.phase, back.is_busy, back.state_bytes) == (
        StatePhase.RESIDENT,
        True,
        None,
    )


@pytest.mark.parametrize("tier", list(SuspendMethod))
def test_what_the_driver_restores_is_marked_before_it_begins_until_its_process_is_another(
    tier: SuspendMethod,
) -> None:
    begins = steps.begin_resume(
        steps.suspended(steps.begin_suspend(HERE), state_bytes=7, tier=tier)
    )
    assert begins.is_restored is (tier is SuspendMethod.CHECKPOINT)
    again = steps.suspended(
        steps.begin_suspend(steps.resumed(begins, 3.0)),
        state_bytes=7,
        tier=SuspendMethod.OFFLOAD,
    )
    assert again.is_restored is begins.is_restored
    assert not steps.reset_for_new_process(again, 4.0).is_restored


def test_how_long_it_took_no_room_is_counted_whatever_happens_to_its_process() -> None:
    parked = steps.with_suspended_time(steps.begin_suspend(HERE), PARKED, 100.0)
    assert (parked.away_at, parked.away_seconds) == (100.0, 0.0)
    anew = steps.with_suspended_time(
        parked, steps.reset_for_new_process(parked, 110.0), 110.0
    )
    assert anew.away_at == 100.0
    waits = steps.with_suspended_time(anew, steps.cell_begins(anew, 130.0), 130.0)
    assert (waits.away_at, waits.away_seconds) == (None, 30.0), (
        "from here on its room is kept for it"
    )
    gave_up = steps.with_suspended_time(waits, steps.cell_ends(waits, 140.0), 140.0)
    back = steps.with_suspended_time(
        gave_up, steps.request_action(gave_up, RequestedAction.RESUME, 135.0), 135.0
    )
    assert back.away_seconds == 30.0, "a clock that was set back takes nothing away"


def test_what_its_user_alone_wants_back_is_idle_once_it_is_there() -> None:
    back = steps.begin_resume(
        steps.request_action(PARKED, RequestedAction.RESUME, 10.0)
    )
    assert steps.resumed(back, 12.0) == DeviceState(
        active_at=12.0, tier=SuspendMethod.CHECKPOINT, is_restored=True
    )
    with_cell = steps.cell_begins(back, 11.0)
    assert (with_cell.wanted_at, steps.resumed(with_cell, 12.0).is_busy) == (10.0, True)


def test_who_asks_for_the_opposite_takes_back_what_was_asked_before() -> None:
    assert (
        steps.request_action(
            steps.request_action(HERE, RequestedAction.SUSPEND, 10.0),
            RequestedAction.RESUME,
            11.0,
        )
        == HERE
    )
    assert (
        steps.request_action(
            steps.request_action(PARKED, RequestedAction.RESUME, 10.0),
            RequestedAction.SUSPEND,
            11.0,
        )
        == PARKED
    )
    waits = steps.cell_begins(PARKED, 9.0)
    assert steps.request_action(waits, RequestedAction.SUSPEND, 11.0) == waits
    assert steps.request_action(waits, RequestedAction.RESUME, 11.0) == waits
    with pytest.raises(LeaseError, match="being resumed"):
        steps.request_action(steps.begin_resume(waits), RequestedAction.SUSPEND, 11.0)


def test_its_user_may_ask_and_is_told_why_not() -> None:
    assert (
        steps.request_action(HERE, RequestedAction.SUSPEND, 10.0).asked
        is RequestedAction.SUSPEND
    )
    assert steps.request_action(PARKED, RequestedAction.RESUME, 10.0).wanted_at == 10.0
    assert steps.request_action(HERE, RequestedAction.RESUME, 10.0).wanted_at is None
    with pytest.raises(LeaseError, match="a cell is running"):
        steps.request_action(
            steps.cell_begins(HERE, 1.0), RequestedAction.SUSPEND, 10.0
        )
    with pytest.raises(LeaseError, match="managed memory"):
        steps.request_action(
            steps.with_pin_reason(HERE, "it uses managed memory"),
            RequestedAction.SUSPEND,
            10.0,
        )


def test_what_its_user_keeps_is_pinned_until_let_go_and_stays_kept_in_a_new_process() -> (
    None
):
    kept = steps.pin(HERE, True)
    assert steps.display_state(kept) is DisplayState.PINNED
    assert steps.why_pinned(kept) == steps.PINNED_BY_USER
    assert steps.reset_for_new_process(kept, 9.0).is_kept
    assert steps.display_state(steps.pin(kept, False)) is DisplayState.WARM


@pytest.mark.parametrize(
    ("step", "before"),
    [
        (steps.begin_suspend, PARKED),
        (steps.begin_resume, HERE),
        (
            lambda item: steps.suspended(
                item, state_bytes=0, tier=SuspendMethod.OFFLOAD
            ),
            HERE,
        ),
        (lambda item: steps.suspend_failed(item, 1.0, ""), PARKED),
        (lambda item: steps.resumed(item, 1.0), PARKED),
        (lambda item: steps.resume_failed(item, ""), HERE),
    ],
)
def test_a_step_that_does_not_apply_is_refused(step, before: DeviceState) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(LeaseError, match="cannot"):
        step(before)
