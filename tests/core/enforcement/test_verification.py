from __future__ import annotations

from typing import Any

import pytest

from jupyter_aistack.core.enforcement.preparation import Expectation
from jupyter_aistack.core.enforcement.verification import check_enforcement
from jupyter_aistack.core.model.condition import ConditionKind, new_condition


@pytest.mark.parametrize(
    ("expects", "seen", "verdict"),
    [
        (
            {"cores": [0, 1], "threads": "2"},
            {"cores": [1, 0], "threads": "2"},
            (True, ""),
        ),
        (
            {"cores": [0]},
            {"cores": [0, 1]},
            (False, "not enforced: the process sees CPU cores 0, 1 instead of 0"),
        ),
        (
            {"threads": "1"},
            {},
            (
                False,
                "not enforced: the process sees OMP_NUM_THREADS = (unset) instead of 1",
            ),
        ),
        ({"visible": ["GPU-a"]}, {"visible": ["GPU-a"]}, (True, "")),
        (
            {"visible": ["GPU-a"]},
            {"visible": ["GPU-a", "GPU-b"]},
            (
                False,
                "not enforced: the process sees devices GPU-a, GPU-b instead of GPU-a",
            ),
        ),
        (
            {"visible": ["GPU-a"]},
            {"visible": None, "problem": "no driver"},
            (None, "could not be verified: no driver"),
        ),
        ({"visible": []}, {"visible": None, "problem": "no driver"}, (True, "")),
        (
            {"visible": ["GPU-a"], "cores": [0]},
            {"visible": None, "cores": [0, 1]},
            (False, "not enforced: the process sees CPU cores 0, 1 instead of 0"),
        ),
        (
            {},
            {"cores": [0]},
            (None, "could not be verified: there is nothing to verify"),
        ),
    ],
)
def test_what_a_child_sees_is_held_against_what_was_promised(
    expects: dict[str, Any],
    seen: dict[str, object],
    verdict: tuple[bool | None, str],
) -> None:
    kept, condition = check_enforcement(Expectation(**expects), seen, 1.0)
    assert (kept, condition.text if condition else "") == verdict


def test_memory_of_another_size_than_promised_is_told_but_not_what_the_driver_keeps() -> (
    None
):
    promised = Expectation(visible=("MIG-a",), memory_total=16 << 30)
    kept_back = {"visible": ["MIG-a"], "memory_total": (16 << 30) + (100 << 20)}
    assert check_enforcement(promised, kept_back, 1.0) == (True, None)
    whole = {"visible": ["MIG-a"], "memory_total": 141 << 30}
    message = "the process sees 141.0 GiB of memory instead of 16.0 GiB"
    assert check_enforcement(promised, whole, 1.0) == (
        False,
        new_condition(ConditionKind.NOT_ENFORCED, message, 1.0),
    )
