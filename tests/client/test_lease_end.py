"""What is said when a lease has ended."""

from __future__ import annotations

import json

import pytest

from jupyter_aistack.client.lease_end import ended_line
from tests.fakes.samples import lease
from tests.paths import DATA

SAMPLES = json.loads((DATA / "wire_samples.json").read_text())["leases"]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (
            "preempted",
            "preempted: a higher-priority request needed the capacity",
        ),
        ("reclaimed", "reclaimed: idle"),
        ("expired", "lease expired"),
    ],
)
def test_the_end_of_a_lease_says_what_happened_and_how_to_get_another(
    outcome: str, words: str
) -> None:
    line = ended_line(lease(outcome=outcome))
    assert line == (
        f"the lease l-1 has ended: {words}; this kernel runs without a device now; %gpu request 1/4 asks again"
    )


def test_a_lease_that_was_given_back_is_not_offered_again() -> None:
    assert "asks again" not in ended_line(lease(outcome="released"))
