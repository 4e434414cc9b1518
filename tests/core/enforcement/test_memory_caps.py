"""Whose cap counts: a user's own may be lower than the slice's, never higher."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.enforcement.memory_caps import (
    combine_caps,
    merge_caps,
    with_torch_share,
)

GRANTED = {
    "CUDA_VISIBLE_DEVICES": "GPU-a",
    "AISTACK_MEMORY_FRACTION": "0.245000",
    "CUPY_GPU_MEMORY_LIMIT": "21000000000",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.232750",
}
FORCED = ("CUDA_", "AISTACK_")


def settled(**own: str) -> dict[str, str]:
    return {**own, **merge_caps(own, GRANTED, forced=FORCED)}


def test_without_settings_of_the_users_all_is_set() -> None:
    assert settled() == GRANTED


def test_what_is_ours_is_set_whatever_was_there() -> None:
    env = settled(CUDA_VISIBLE_DEVICES="0,1", AISTACK_MEMORY_FRACTION="0.01")
    assert (env["CUDA_VISIBLE_DEVICES"], env["AISTACK_MEMORY_FRACTION"]) == (
        "GPU-a",
        "0.245000",
    )


def test_a_switch_of_the_users_stands() -> None:
    assert (
        settled(TF_FORCE_GPU_ALLOW_GROWTH="false")["TF_FORCE_GPU_ALLOW_GROWTH"]
        == "false"
    )


@pytest.mark.parametrize(
    ("own", "stands"),
    [
        ("1000", True),
        ("80000000000", False),
        ("10%", True),
        ("24.5%", True),
        ("50%", False),
        ("0%", False),
        ("all", False),
        ("", False),
        ("-1", False),
    ],
)
def test_of_two_limits_for_cupy_the_lower_counts(own: str, stands: bool) -> None:
    limit = settled(CUPY_GPU_MEMORY_LIMIT=own)["CUPY_GPU_MEMORY_LIMIT"]
    assert limit == (own if stands else GRANTED["CUPY_GPU_MEMORY_LIMIT"])


@pytest.mark.parametrize(
    ("own", "counts"), [("0.1", "0.1"), ("0.75", "0.232750"), ("nonsense", "0.232750")]
)
@pytest.mark.parametrize(
    "name", ["XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"]
)
def test_of_two_shares_for_jax_the_lower_counts_under_the_name_the_user_chose(
    name: str, own: str, counts: str
) -> None:
    env = settled(**{name: own})
    assert {key: value for key, value in env.items() if key.startswith("XLA")} == {
        name: counts
    }


def test_two_slices_of_one_process_have_the_tighter_caps() -> None:
    other = {
        "AISTACK_MEMORY_FRACTION": "0.5",
        "CUPY_GPU_MEMORY_LIMIT": "9000000000",
        "OMP_NUM_THREADS": "2",
    }
    assert combine_caps(GRANTED, other) == {
        "AISTACK_MEMORY_FRACTION": "0.245000",
        "CUPY_GPU_MEMORY_LIMIT": "9000000000",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.232750",
    }


@pytest.mark.parametrize(
    ("conf", "merged_conf"),
    [
        ("", "per_process_memory_fraction:0.25"),
        ("backend:native", "backend:native,per_process_memory_fraction:0.25"),
        (
            "roundup_power2_divisions:[256:1,>:8]",
            "roundup_power2_divisions:[256:1,>:8],per_process_memory_fraction:0.25",
        ),
        (
            "per_process_memory_fraction:0.9,backend:native",
            "per_process_memory_fraction:0.25,backend:native",
        ),
        (
            "backend:native, per_process_memory_fraction : 0.1",
            "backend:native, per_process_memory_fraction : 0.1",
        ),
    ],
)
def test_a_share_is_merged_into_what_torch_is_told_already(
    conf: str, merged_conf: str
) -> None:
    assert with_torch_share(conf, "0.25") == merged_conf
