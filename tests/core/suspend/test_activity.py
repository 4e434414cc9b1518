"""Who gets its state back because something runs in its kernel."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.model.device_state import StatePhase
from jupyter_aistack.core.suspend.activity import (
    GRACE_SECONDS,
    ActivityVerdict,
    KernelWork,
    begin_work,
    end_work,
    inspect,
)
from jupyter_aistack.testing import ManualClock


def busy(clock: ManualClock, cpu: float | None = 0.0) -> KernelWork:
    return begin_work(KernelWork(), clock(), cpu)


@pytest.mark.parametrize(
    "phase", [StatePhase.PARKED, StatePhase.PARKING, StatePhase.RESTORING]
)
@pytest.mark.parametrize("has_agent", [True, False])
def test_what_runs_on_without_its_state_and_without_the_cpu_waits_for_it(
    phase: StatePhase, has_agent: bool
) -> None:
    clock = ManualClock()
    work, text = inspect(
        busy(clock), phase, has_agent=has_agent, cpu_seconds=0.0, now=clock()
    )
    assert text is ActivityVerdict.NOTHING, (
        "a moment is left to completions and inspectors"
    )
    clock.advance(GRACE_SECONDS)
    work, text = inspect(
        work, phase, has_agent=has_agent, cpu_seconds=0.01, now=clock()
    )
    assert text is ActivityVerdict.BEGINS
    clock.advance(1)
    assert (
        inspect(work, phase, has_agent=has_agent, cpu_seconds=0.01, now=clock())[1]
        is ActivityVerdict.NOTHING
    ), "once"
    assert end_work(work) == (KernelWork(), ActivityVerdict.ENDS)


def test_what_is_over_at_once_was_no_use_of_the_device() -> None:
    clock = ManualClock()
    assert end_work(busy(clock)) == (KernelWork(), ActivityVerdict.NOTHING)


def test_what_works_on_the_cpu_is_left_alone_until_it_stops_doing_so() -> None:
    clock, cpu = ManualClock(), 0.0
    work = busy(clock)
    for _ in range(5):
        clock.advance(0.2)
        cpu += 0.19
        work, text = inspect(
            work, StatePhase.PARKED, has_agent=False, cpu_seconds=cpu, now=clock()
        )
        assert text is ActivityVerdict.NOTHING
    clock.advance(0.2)
    assert (
        inspect(
            work,
            StatePhase.PARKED,
            has_agent=False,
            cpu_seconds=cpu + 0.01,
            now=clock(),
        )[1]
        is ActivityVerdict.BEGINS
    )


def test_cpu_time_that_cannot_be_read_is_no_excuse() -> None:
    clock = ManualClock()
    work = busy(clock, None)
    clock.advance(GRACE_SECONDS)
    assert (
        inspect(
            work, StatePhase.PARKED, has_agent=False, cpu_seconds=None, now=clock()
        )[1]
        is ActivityVerdict.BEGINS
    )


def test_a_kernel_that_tells_by_itself_is_believed_while_its_state_is_there() -> None:
    clock = ManualClock()
    work = busy(clock)
    clock.advance(1)
    work, text = inspect(
        work, StatePhase.RESIDENT, has_agent=True, cpu_seconds=0.0, now=clock()
    )
    assert text is ActivityVerdict.NOTHING
    clock.advance(1)
    assert (
        inspect(work, StatePhase.PARKING, has_agent=True, cpu_seconds=0.0, now=clock())[
            1
        ]
        is ActivityVerdict.BEGINS
    )


def test_any_other_kernel_is_in_use_while_something_runs_in_it_so_that_it_is_not_parked_amid() -> (
    None
):
    clock = ManualClock()
    work = busy(clock)
    clock.advance(GRACE_SECONDS)
    assert (
        inspect(
            work, StatePhase.RESIDENT, has_agent=False, cpu_seconds=99.0, now=clock()
        )[1]
        is ActivityVerdict.BEGINS
    )


def test_what_is_on_its_way_back_is_not_asked_for_again() -> None:
    clock = ManualClock()
    work = busy(clock)
    clock.advance(1)
    work, text = inspect(
        work,
        StatePhase.PARKED,
        has_agent=False,
        cpu_seconds=0.0,
        now=clock(),
        is_wanted=True,
    )
    assert text is ActivityVerdict.NOTHING, "its user's own wish stands"
    clock.advance(1)
    assert (
        inspect(
            work, StatePhase.RESIDENT, has_agent=False, cpu_seconds=0.0, now=clock()
        )[1]
        is ActivityVerdict.BEGINS
    )


def test_what_is_lost_is_not_woken_and_a_second_message_changes_nothing() -> None:
    clock = ManualClock()
    work = busy(clock)
    clock.advance(1)
    assert begin_work(work, clock(), 5.0) == work
    assert inspect(
        work, StatePhase.LOST, has_agent=False, cpu_seconds=0.0, now=clock()
    ) == (work, ActivityVerdict.NOTHING)
    assert (
        inspect(
            KernelWork(),
            StatePhase.PARKED,
            has_agent=False,
            cpu_seconds=0.0,
            now=clock(),
        )[1]
        is ActivityVerdict.NOTHING
    )
