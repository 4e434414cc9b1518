"""Conditions of a lease: one of each kind, the gravest first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    Conditions,
    ConditionUpdate,
    Severity,
    condition_of,
    conditions_text,
    new_condition,
    ordered,
    with_condition,
    without_condition,
    worst,
)

KINDS = list(ConditionKind)
ANY = st.builds(
    new_condition,
    st.sampled_from(KINDS),
    st.text(max_size=5),
    st.floats(0, 10),
)
SETS = st.lists(ANY, unique_by=lambda each: each.kind).map(ordered)


@given(SETS, ANY)
def test_a_condition_replaces_that_of_its_kind_and_no_other(
    before: Conditions, condition: Condition
) -> None:
    after = with_condition(before, condition)
    known = condition_of(before, condition.kind)
    assert after == ordered(after)
    assert len({each.kind for each in after}) == len(after)
    assert without_condition(after, condition.kind) == without_condition(
        before, condition.kind
    )
    put = condition_of(after, condition.kind)
    assert put is not None
    assert put.message == condition.message
    assert put.since == (condition.since if known is None else known.since)


@given(SETS, st.lists(ANY, max_size=3), st.frozensets(st.sampled_from(KINDS)))
def test_an_update_leaves_the_conditions_of_others_alone(
    before: Conditions, put: list[Condition], clear: frozenset[ConditionKind]
) -> None:
    update = ConditionUpdate(put=tuple(put), clear=clear)
    after = update.apply(before)
    own = {each.kind for each in put} | clear
    assert without_condition(after, *own) == without_condition(before, *own)
    assert {each.kind for each in after} & own == {each.kind for each in put}
    assert update.apply(after) == after


def test_the_gravest_comes_first_and_is_told_with_its_label() -> None:
    fault = new_condition(ConditionKind.DEVICE_FAULT, "it broke", 2.0)
    near = new_condition(ConditionKind.MEMORY_PRESSURE, "38 of 40 GiB", 1.0)
    both = with_condition(with_condition((), near), fault)
    assert worst(both) == fault
    assert worst(()) is None
    assert (fault.severity, near.severity) == (Severity.ERROR, Severity.WARNING)
    assert (
        conditions_text(both)
        == "on a GPU that failed: it broke; near its memory: 38 of 40 GiB"
    )
    assert ConditionUpdate(put=(near, fault)).text == fault.text


def test_a_note_is_told_without_a_label() -> None:
    assert new_condition(ConditionKind.NOTE, "lent until ten", 1.0).text == (
        "lent until ten"
    )
