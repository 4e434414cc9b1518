"""From facts to a level, and the reasons against a better one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.model.device import Enforcement
from jupyter_aistack.providers.nvidia.levels import (
    ComputeMode,
    HostCapabilities,
    highest_level,
)

BEST = HostCapabilities(
    mig=False,
    driver="615.71.09",
    capability=(9, 0),
    compute_mode=ComputeMode.EXCLUSIVE_PROCESS,
    control="/usr/bin/nvidia-cuda-mps-control",
    protocols=frozenset({2, 3}),
)


def told(**changes: object) -> tuple[str, dict[str, str]]:
    rung = highest_level(replace(BEST, **changes))  # type: ignore[arg-type]
    return (rung.level.value if rung.level else "none"), dict(rung.why_not)


def test_each_level_is_reached_with_what_it_needs_and_tells_of_those_above() -> None:
    assert told(mig=True, instances=2) == ("L4", {})
    assert told() == (
        "L3",
        {"L4": "MIG mode is off; only an administrator may change that"},
    )
    assert told(helper="no helper") == ("L2", {**told()[1], "L3": "no helper"})
    level, why = told(driver="580.65.06")
    assert (level, list(why)) == ("L1", ["L4", "L3", "L2"])
    assert (
        why["L2"]
        == why["L3"]
        == "MPS namespaces need driver 615 or newer, and this is 580.65.06"
    )
    level, why = told(control="")
    assert (level, list(why)) == ("L0", ["L4", "L3", "L2", "L1"])


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"cgroup": "no dmem"}, "L2", "no dmem"),
        ({"protocols": frozenset({2})}, "L1", "does not speak protocol 3"),
        ({"driver": ""}, "L1", "this is unknown"),
        (
            {"driver": "470.82.01"},
            "L0",
            "MPS limits memory from driver 495 on, and this is 470.82.01",
        ),
        ({"capability": (6, 1)}, "L0", "its compute capability is 6.1"),
        (
            {"compute_mode": ComputeMode.PROHIBITED},
            "L0",
            "it is in compute mode PROHIBITED",
        ),
        (
            {"foreign": "process 7 of bob"},
            "L0",
            "another MPS daemon (process 7 of bob) runs",
        ),
        ({"refusal": "MPS needs Linux"}, "L0", "MPS needs Linux"),
        (
            {"failure": "no compatible devices"},
            "L0",
            "MPS could not be started: no compatible devices",
        ),
    ],
)
def test_what_is_missing_lowers_the_level_and_is_said(
    changes: dict[str, object], level: str, words: str
) -> None:
    result, why = told(**changes)
    assert result == level
    assert words in list(why.values())[-1]


def test_mig_mode_without_an_instance_grants_no_share_and_says_what_to_do() -> None:
    level, why = told(mig=True)
    assert level == "none"
    assert (
        "there is no instance; create some with nvidia-smi mig -i 0 -cgi, as root"
        in why["L4"]
    )
    assert why["L1"] == "a GPU in MIG mode is granted by the instance"


def test_compute_instances_that_share_memory_are_not_called_hardware() -> None:
    level, why = told(mig=True, parts=2)
    assert level == "L0"
    assert "share their memory with each other" in why["L4"]


def test_a_gpu_without_mig_says_so() -> None:
    assert told(mig=None)[1]["L4"] == "this GPU has no MIG"


def test_the_advice_is_given_where_a_wrong_directory_would_cost_something() -> None:
    advice = highest_level(
        replace(BEST, compute_mode=ComputeMode.DEFAULT, foreign="process 7", index=3)
    ).advice
    assert "nvidia-smi -i 3 -c EXCLUSIVE_PROCESS, as root" in advice
    assert "processes of another MPS daemon (process 7) are not held by it" in advice
    assert highest_level(BEST).advice == ""
    assert (
        highest_level(
            replace(BEST, compute_mode=ComputeMode.DEFAULT, control="")
        ).advice
        == ""
    )


def test_an_unknown_compute_mode_is_no_reason() -> None:
    assert highest_level(replace(BEST, compute_mode=None)).level is Enforcement.L3


REASONS = st.sampled_from(["", "because"])


@given(
    st.builds(
        HostCapabilities,
        mig=st.sampled_from([None, False, True]),
        instances=st.integers(0, 2),
        parts=st.integers(0, 2),
        driver=st.sampled_from(["", "nonsense", "470.1", "580.65", "615.71.09"]),
        capability=st.sampled_from([(0, 0), (6, 1), (7, 0), (9, 0)]),
        compute_mode=st.sampled_from([None, *ComputeMode]),
        refusal=REASONS,
        control=REASONS,
        protocols=st.sampled_from([frozenset(), frozenset({2}), frozenset({2, 3})]),
        foreign=REASONS,
        failure=REASONS,
        cgroup=REASONS,
        helper=REASONS,
    )
)
def test_each_level_above_the_one_reached_has_a_reason_and_none_below(
    facts: HostCapabilities,
) -> None:
    rung = highest_level(facts)
    reached = rung.level.value if rung.level else "L0"
    above = [
        level.value
        for level in (Enforcement.L4, Enforcement.L3, Enforcement.L2, Enforcement.L1)
    ]
    assert [level for level, _ in rung.why_not] == [
        level for level in above if level > reached
    ]
    assert all(reason for _, reason in rung.why_not)
