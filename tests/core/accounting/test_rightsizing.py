from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jupyter_aistack.core.accounting.charges import (
    LEVELS,
    NO_LEVELS,
    UsageRecord,
    level_of,
)
from jupyter_aistack.core.accounting.rightsizing import (
    Advice,
    SizeOption,
    advise,
    sizes,
)
from jupyter_aistack.core.model.units import GIB

WHOLE = 140 * GIB


def charge(
    share: float = 0.5,
    peak: float | None = 9.3,
    busy: float | None = 0.07,
    hours: float = 5.0,
    **fields: Any,
) -> UsageRecord:
    seconds = hours * 3600
    levels = list(NO_LEVELS)
    if busy is not None:
        levels[level_of(busy)] += seconds / 2
        levels[0] += seconds / 2
    text: dict[str, Any] = {"lease_id": "l-1", "spec": "1/2", "day": 20_000}
    return UsageRecord(
        host="box",
        device_id="GPU-0",
        seconds=seconds,
        share_seconds=seconds * share,
        levels=tuple(levels),
        busy_seconds=(busy or 0.0) * seconds / 2,
        peak_bytes=None if peak is None else int(peak * GIB),
        **text | fields,
    )


def told(*charges: UsageRecord) -> Advice:
    return advise("a.ipynb", charges, sizes(WHOLE), WHOLE)


def test_a_slice_that_is_mostly_empty_could_be_smaller():
    advice = told(charge())
    assert (advice.verdict, advice.advised) == ("less", "1/8")
    assert (
        advice.text
        == "asked 1/2 = 70.0 GiB, peak 9.3 GiB, busy 14%: 1/8 would do; saves 1.9 GPU-h a week"
    )
    assert advice.as_dict()["saved_gpu_hours"] == pytest.approx(1.875)


def test_a_ceiling_is_no_part_of_what_was_asked_for():
    calm = charge(0.25, busy=0.2, spec="1/4", day=19_999)
    above = charge(0.6, busy=0.6, spec="1/4", peak=70.0)
    advice = told(calm, above)
    assert advice.text.startswith("asked 1/4 = 35.0 GiB, peak 70.0 GiB")
    assert advice.verdict == "more"


def test_an_estimate_is_told_and_does_not_show_that_more_is_needed():
    shared = charge(0.25, busy=0.5, spec="1/4", estimated_millijoules=1)
    advice = told(shared)
    assert (advice.verdict, advice.advised) == ("fits", "")
    assert "busy 100% (an estimate)" in advice.text
    assert told(replace(shared, estimated_millijoules=0)).verdict == "more"


def test_hours_saved_are_of_a_week():
    long = [charge(day=20_000 + day) for day in range(0, 28, 7)] + [charge(day=20_027)]
    assert told(*long).saved_gpu_hours == pytest.approx(0.375 * 25 / 4)


@pytest.mark.parametrize(
    ("fields", "advised"),
    [
        ({"peak": 14.0}, "1/8"),
        ({"peak": 15.0}, "1/4"),  # with margin and context it does not fit an eighth
        ({"peak": 29.0}, "1/4"),
        ({"busy": 0.2}, "1/4"),
        ({"busy": 0.26, "share": 1.0, "spec": "1"}, "1/2"),
    ],
)
def test_both_memory_and_activity_must_fit(fields: dict[str, Any], advised: str):
    assert told(charge(**fields)).advised == advised


def test_rare_bursts_do_not_count_but_time_that_is_not_rare_does():
    calm, burst = charge(hours=97), charge(hours=3, busy=0.9)
    assert told(calm, burst).advised == "1/8"
    assert told(charge(hours=90), charge(hours=10, busy=0.9)).verdict == "more"


def test_time_spent_waiting_for_the_user_says_nothing_of_the_size():
    waiting = charge(hours=500, busy=0.0)
    assert told(charge(busy=0.45), waiting).verdict == "fits"


def test_a_slice_that_is_nearly_full_should_be_larger():
    advice = told(charge(peak=66.0))
    assert (advice.verdict, advice.advised) == ("more", "1")
    assert "its memory was nearly all used; ask 1" in advice.text
    over = told(charge(share=0.125, peak=20.0, spec="1/8"))
    assert (over.verdict, over.advised) == ("more", "1/4")
    assert told(charge(share=1.0, peak=139.0, spec="1")).verdict == "more"
    assert "no size here holds it" in told(charge(share=1.0, peak=139.0, spec="1")).text


def test_only_the_last_size_that_was_asked_for_is_judged():
    before = charge(share=1.0, peak=100.0, spec="1", day=19_990)
    assert told(before, charge()).advised == "1/8"


@pytest.mark.parametrize(
    ("charges", "why"),
    [
        ([], "it has held no GPU yet"),
        ([charge(kind="cpu")], "it has held no GPU yet"),
        ([charge(lease_id="")], "it has held no GPU yet"),
        ([charge(hours=0.4)], "0.4 h of use are too short"),
        ([charge(busy=None)], "could not be measured"),
        ([charge(peak=None)], "could not be measured"),
        ([charge(kind="simulated")], "simulated"),
    ],
)
def test_without_enough_history_it_says_so(charges: list[UsageRecord], why: str):
    advice = told(*charges)
    assert (advice.verdict, advice.advised) == ("unknown", "")
    assert advice.text.startswith("no advice yet: ")
    assert why in advice.text


def test_mig_instances_are_sizes_too():
    profiles = [
        SizeOption(name="1g.18gb", share=sizes(WHOLE)[0].share, memory_bytes=16 * GIB)
    ]
    advice = advise("a.ipynb", [charge(peak=8.0, spec="3g.71gb")], profiles, WHOLE)
    assert (advice.verdict, advice.advised) == ("less", "1g.18gb")


def test_every_common_size_is_a_level():
    assert {float(size.share) for size in sizes(WHOLE)} <= set(LEVELS)
