"""When a lease's memory is warned of, when something is done, and about whom."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.enforcement.memory_limits import (
    UNMEASURED,
    Judgement,
    MemoryAction,
    MemoryFill,
    PressureLevel,
    WatchedLease,
    evaluate_lowered,
    evaluate_memory,
    fullest,
    granted_together,
    sentence,
)
from jupyter_aistack.core.model.condition import ConditionKind, new_condition
from jupyter_aistack.core.model.device import ProcessUse
from jupyter_aistack.core.model.units import GIB, MIB

KERNEL, WORKER, OTHER = 4711, 4712, 4713
GRANTED = 40 * GIB
INTERRUPT = MemoryAction.INTERRUPT
KINDS = {
    PressureLevel.CALM: None,
    PressureLevel.NEAR: ConditionKind.MEMORY_PRESSURE,
    PressureLevel.OVER: ConditionKind.MEMORY_EXCEEDED,
}


def fill(**held: float) -> MemoryFill:
    """GiB held by the kernel and its worker, of 40."""
    pids = {"kernel": KERNEL, "worker": WORKER, "other": OTHER}
    result = fullest(
        {"GPU-a": GRANTED},
        {"GPU-a": {pids[name]: int(gib * GIB) for name, gib in held.items()}},
        set(pids.values()),
        dict.fromkeys(pids.values(), "python"),
    )
    assert result is not None
    return result


def look(
    before: WatchedLease, measured: MemoryFill | None, action: MemoryAction = INTERRUPT
) -> Judgement:
    return evaluate_memory(
        before, measured, action=action, label="train.ipynb", root=KERNEL, now=5.0
    )


def after(
    *measured: MemoryFill | None, action: MemoryAction = INTERRUPT
) -> list[Judgement]:
    """What each of several looks comes to."""
    watched, result = WatchedLease(), []
    for each in measured:
        result.append(look(watched, each, action))
        watched = result[-1].watched
    return result


@pytest.mark.parametrize(
    ("gib", "level"),
    [
        (0, PressureLevel.CALM),
        (35.9, PressureLevel.CALM),
        (36, PressureLevel.NEAR),
        (40, PressureLevel.NEAR),
        (40.01, PressureLevel.OVER),
    ],
)
def test_a_lease_is_warned_at_nine_tenths_and_over_above_all_of_it(
    gib: float, level: PressureLevel
) -> None:
    (result,) = after(fill(kernel=gib))
    assert (result.watched.level, result.is_worse) == (
        level,
        level is not PressureLevel.CALM,
    )
    kind = result.watched.condition and result.watched.condition.kind
    assert kind is KINDS[level]


def test_a_breach_is_said_and_acted_on_once() -> None:
    first, second, third = after(fill(kernel=42), fill(kernel=44), fill(kernel=41))
    assert first.culprit == ProcessUse(pid=KERNEL, memory_bytes=42 * GIB, name="python")
    assert [(each.is_worse, each.culprit) for each in (second, third)] == [
        (False, None)
    ] * 2
    assert {each.watched.condition for each in (first, second, third)} == {
        new_condition(
            ConditionKind.MEMORY_EXCEEDED,
            "python 4711 of train.ipynb holds 42.0 GiB of 40.0 GiB; "
            "free some, or ask for a larger slice",
            5.0,
        )
    }


def test_after_it_was_calm_again_a_breach_is_a_new_one() -> None:
    looks = after(
        fill(kernel=42),
        fill(kernel=39),
        fill(kernel=42),
        fill(kernel=35),
        fill(kernel=20),
        fill(kernel=42),
    )
    assert [bool(each.culprit) for each in looks] == [
        True,
        False,
        False,
        False,
        False,
        True,
    ]
    assert [each.watched.level for each in looks] == [
        PressureLevel.OVER,
        PressureLevel.OVER,  # still above nine tenths
        PressureLevel.OVER,
        PressureLevel.NEAR,
        PressureLevel.CALM,
        PressureLevel.OVER,
    ]


def test_a_warning_at_the_edge_does_not_come_and_go() -> None:
    looks = after(
        fill(kernel=36),
        fill(kernel=35),
        fill(kernel=36),
        fill(kernel=33),
        fill(kernel=36),
    )
    assert [each.is_worse for each in looks] == [True, False, False, False, True]


def test_what_a_context_takes_beside_the_pool_is_said_and_not_acted_on() -> None:
    at_edge, beyond = after(fill(kernel=40.4), fill(kernel=40.6))
    assert (at_edge.watched.level, at_edge.culprit) == (PressureLevel.OVER, None)
    assert beyond.culprit is not None


def test_small_slices_have_little_slack() -> None:
    assert not MemoryFill(
        memory_bytes=1074 * MIB, granted_bytes=1024 * MIB
    ).is_beyond_slack
    assert MemoryFill(memory_bytes=1080 * MIB, granted_bytes=1024 * MIB).is_beyond_slack


def test_where_the_policy_is_to_warn_nothing_is_acted_on() -> None:
    (result,) = after(fill(kernel=42), action=MemoryAction.WARN)
    assert (result.is_worse, result.culprit, result.watched.acted_on) == (
        True,
        None,
        None,
    )


def test_a_worker_goes_before_the_kernel_however_much_the_kernel_holds() -> None:
    (result,) = after(fill(kernel=38, worker=5, other=1))
    assert result.culprit is not None
    assert result.culprit.pid == WORKER


def test_the_kernel_itself_is_meant_only_if_it_alone_holds_memory() -> None:
    (result,) = after(fill(kernel=42, worker=0))
    assert result.culprit is not None
    assert result.culprit.pid == KERNEL


def test_when_the_one_acted_on_has_gone_and_it_is_still_over_the_next_one_is_meant() -> (
    None
):
    looks = after(
        fill(kernel=1, worker=30, other=25),
        fill(kernel=1, worker=30, other=25),
        fill(kernel=20, other=25),
    )
    assert [each.culprit.pid if each.culprit else None for each in looks] == [
        WORKER,
        None,
        OTHER,
    ]


def test_what_cannot_be_measured_is_said_and_is_neither_zero_nor_an_all_clear() -> None:
    over, blind, again = after(fill(kernel=42), None, fill(kernel=42))
    assert (blind.watched.condition, blind.watched.level, blind.culprit) == (
        new_condition(ConditionKind.MEMORY_UNKNOWN, UNMEASURED, 5.0),
        PressureLevel.OVER,
        None,
    )
    assert again.culprit is None
    assert again.watched.condition == over.watched.condition


def test_the_largest_is_named_where_there_are_several() -> None:
    words = "2 processes of train.ipynb hold 42.0 GiB of 40.0 GiB, python 4712 the most (40.0 GiB)"
    assert sentence(fill(kernel=2, worker=40), "train.ipynb") == words


def test_only_the_sum_may_be_known() -> None:
    assert (
        sentence(MemoryFill(memory_bytes=3 * GIB, granted_bytes=2 * GIB), "a.ipynb")
        == "a.ipynb holds 3.0 GiB of 2.0 GiB"
    )


def test_processes_of_others_do_not_count() -> None:
    held = {"GPU-a": {KERNEL: GIB, 999: 70 * GIB}}
    result = fullest({"GPU-a": GRANTED}, held, {KERNEL}, {})
    assert result is not None
    assert [process.pid for process in result.processes] == [KERNEL]


def test_each_device_has_its_own_bound() -> None:
    granted = granted_together(
        [("GPU-a", 10 * GIB), ("GPU-b", 10 * GIB), ("GPU-b", 10 * GIB)]
    )
    assert granted == {"GPU-a": 10 * GIB, "GPU-b": 20 * GIB}
    result = fullest(
        granted, {"GPU-a": {KERNEL: 11 * GIB}, "GPU-b": {KERNEL: 2 * GIB}}, {KERNEL}, {}
    )
    assert result is not None
    assert (result.memory_bytes, result.granted_bytes) == (11 * GIB, 10 * GIB)


@pytest.mark.parametrize(
    ("held", "is_known"),
    [
        ({}, False),  # no list at all
        ({"GPU-a": None, "GPU-b": {}}, False),
        ({"GPU-a": {KERNEL: None}, "GPU-b": {}}, False),
        ({"GPU-a": {}, "GPU-b": {}}, True),
        (
            {"GPU-a": {999: None}, "GPU-b": {}},
            True,
        ),  # a stranger's figure is nobody's business
        (
            {"GPU-a": None, "GPU-b": {KERNEL: 11 * GIB}},
            True,
        ),  # a breach that is seen is one
        ({"GPU-a": {KERNEL: None, WORKER: 11 * GIB}, "GPU-b": {}}, True),
    ],
)
def test_unknown_is_not_zero(
    held: dict[str, dict[int, int | None] | None], is_known: bool
) -> None:
    granted = {"GPU-a": 10 * GIB, "GPU-b": 10 * GIB}
    assert (fullest(granted, held, {KERNEL, WORKER}, {}) is not None) is is_known


# -- a limit that was lowered ----------------------------------------------------------


def lowered(before: WatchedLease, held: float, left: float = 48.0) -> Judgement:
    return evaluate_lowered(
        before, fill(kernel=held), label="train.ipynb", seconds_left=left, now=5.0
    )


def test_what_is_held_above_a_lowered_limit_is_told_and_not_acted_on() -> None:
    first = lowered(WatchedLease(), 60)
    assert first.is_worse
    assert first.culprit is None
    condition = first.watched.condition
    assert condition is not None
    assert condition.kind is ConditionKind.LIMIT_LOWERED
    assert condition.message == (
        "python 4711 of train.ipynb holds 60.0 GiB of 40.0 GiB, for others need the "
        "rest; free it within 48 s, or it is over its memory"
    )
    again = lowered(first.watched, 55, left=20.0)
    assert not again.is_worse
    assert again.watched.condition == condition


def test_after_the_grace_it_is_over_its_memory_like_any_other() -> None:
    watched = lowered(WatchedLease(), 60).watched
    over = look(watched, fill(kernel=60))
    assert over.is_worse
    assert over.watched.condition is not None
    assert over.watched.condition.kind is ConditionKind.MEMORY_EXCEEDED
    assert over.culprit is not None


def test_what_was_freed_in_time_is_said_no_longer() -> None:
    watched = lowered(WatchedLease(), 60).watched
    assert look(watched, fill(kernel=10)).watched == WatchedLease()
    near = look(watched, fill(kernel=38)).watched.condition
    assert near is not None
    assert near.kind is ConditionKind.MEMORY_PRESSURE
