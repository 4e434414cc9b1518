"""Cutting H200s: profiles and places as NVIDIA documents them for eight memory
slices.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.placement.mig_plan import (
    GPUInstance,
    Layout,
    MIGAction,
    MIGPlacement,
    MIGProfile,
    plan_cuts,
)


def shape(
    number: int, name: str, slices: int, starts: list[int], size: int
) -> MIGProfile:
    places = tuple(MIGPlacement(start=start, size=size) for start in starts)
    return MIGProfile(id=number, name=name, gpu_slices=slices, places=places)


SHAPES = (
    shape(19, "1g.18gb", 1, [0, 1, 2, 3, 4, 5, 6], 1),
    shape(15, "1g.35gb", 1, [0, 2, 4, 6], 2),
    shape(14, "2g.35gb", 2, [0, 2, 4], 2),
    shape(9, "3g.71gb", 3, [0, 4], 4),
    shape(5, "4g.71gb", 4, [0], 4),
    shape(0, "7g.141gb", 7, [0], 8),
)
NAMES = [each.name for each in SHAPES]


def layout(
    *instances: GPUInstance, index: int = 0, shapes: tuple[MIGProfile, ...] = SHAPES
) -> Layout:
    return Layout(
        device_id=f"GPU-{index}", index=index, shapes=shapes, instances=instances
    )


def standing(
    number: int, profile: str, start: int, size: int, in_use: str = ""
) -> GPUInstance:
    return GPUInstance(
        id=number,
        profile=profile,
        span=MIGPlacement(start=start, size=size),
        in_use=in_use,
    )


def test_small_ones_go_to_the_far_end_so_that_a_large_one_still_fits() -> None:
    plan = plan_cuts([layout()], ["1g.18gb", "1g.18gb", "4g.71gb"])
    assert [str(step) for step in plan.steps] == [
        "create 1g.18gb at slice 6 of GPU 0",
        "create 1g.18gb at slice 5 of GPU 0",
        "create 4g.71gb at slice 0 of GPU 0",
    ]
    assert [step.id for step in plan.steps] == [19, 19, 5]


def test_what_is_there_and_unused_is_taken_as_it_is() -> None:
    assert plan_cuts([layout(standing(7, "1g.18gb", 3, 1))], ["1g.18gb"]).steps == ()


def test_one_that_is_there_serves_one_wish_only() -> None:
    plan = plan_cuts([layout(standing(7, "1g.18gb", 3, 1))], ["1g.18gb", "1g.18gb"])
    assert [step.span.start for step in plan.steps] == [6]


def test_an_empty_place_is_preferred_to_giving_an_instance_up() -> None:
    gpus = [layout(standing(7, "2g.35gb", 4, 2)), layout(index=1)]
    assert [str(step) for step in plan_cuts(gpus, ["3g.71gb", "3g.71gb"]).steps] == [
        "create 3g.71gb at slice 0 of GPU 0",
        "create 3g.71gb at slice 4 of GPU 1",
    ]


def test_unused_instances_go_right_before_what_needs_their_place() -> None:
    gpu = layout(
        standing(7, "1g.18gb", 0, 1, "lease l-1"), standing(8, "1g.18gb", 6, 1)
    )
    plan = plan_cuts([gpu], ["3g.71gb"])
    assert [(step.action, step.id) for step in plan.steps] == [
        (MIGAction.DESTROY, 8),
        (MIGAction.CREATE, 9),
    ]


def test_what_is_in_use_stays_and_is_named() -> None:
    gpu = layout(
        standing(7, "1g.18gb", 0, 1, "lease l-1"),
        standing(8, "1g.18gb", 6, 1, "process 42"),
    )
    plan = plan_cuts([gpu], ["3g.71gb"])
    assert plan.steps == ()
    assert plan.refused == (
        ("3g.71gb", "every place for 3g.71gb is taken: lease l-1; process 42"),
    )


def test_what_cannot_be_cut_says_what_can() -> None:
    (refused,) = plan_cuts([layout(shapes=SHAPES[:2])], ["1g.5gb"]).refused
    assert (
        refused[1]
        == "no GPU here may be cut into 1g.5gb; there may be 1g.18gb, 1g.35gb"
    )
    (refused,) = plan_cuts([], ["1g.18gb"]).refused
    assert "no GPU here is in MIG mode" in refused[1]


@given(
    first=st.lists(st.sampled_from(NAMES), max_size=9),
    then=st.lists(st.sampled_from(NAMES), max_size=5),
    used=st.sets(st.integers(0, 8)),
)
def test_plans_never_overlap_nor_touch_what_is_in_use(
    first: list[str], then: list[str], used: set[int]
) -> None:
    made = [
        step
        for step in plan_cuts([layout()], first).steps
        if step.action is MIGAction.CREATE
    ]
    here = {
        number: standing(
            number,
            step.profile,
            step.span.start,
            step.span.size,
            "busy" if number in used else "",
        )
        for number, step in enumerate(made)
    }
    plan = plan_cuts([layout(*here.values())], then)
    spans = {number: each.span for number, each in here.items()}
    for step in plan.steps:
        if step.action is MIGAction.DESTROY:
            assert not here[step.id].in_use
            del spans[step.id]
        else:
            assert not any(step.span.overlaps(span) for span in spans.values())
            spans[100 + len(spans) + step.span.start] = step.span
    assert len(then) >= len(plan.refused)
