"""What is due about a process without a lease."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.enforcement.strays import (
    KILL_SECONDS,
    SETTLE_SECONDS,
    Sighting,
    StrayFacts,
    StrayStep,
    due_step,
    end_of,
    exemption_of,
)
from jupyter_aistack.core.model.stray import Exemption, StrayAction, StrayPolicy

BOB = StrayFacts(
    uid=1001, started=10.0, user="bob", program="python", is_within_reach=True
)
TERMINATE = StrayPolicy(action=StrayAction.TERMINATE, grace_seconds=600.0)
SEEN = Sighting(seen=100.0)
TOLD = Sighting(seen=100.0, is_told=True)


def test_a_user_s_process_within_reach_is_not_exempt() -> None:
    assert exemption_of(BOB, frozenset()) is Exemption.NONE
    assert exemption_of(BOB, frozenset({"ann", "@staff"})) is Exemption.NONE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"uid": None}, Exemption.UNKNOWN),
        ({"started": None}, Exemption.UNKNOWN),
        ({"program": ""}, Exemption.UNKNOWN),
        ({"may_hold": True}, Exemption.UNKNOWN),
        ({"is_broker": True}, Exemption.BROKER),
        ({"uid": 0, "user": "root"}, Exemption.ROOT),
        ({"installed": "gnome-shell"}, Exemption.DISPLAY),
        ({"installed": "driverd"}, Exemption.DISPLAY),
        ({"user": "ann"}, Exemption.LISTED),
        ({"groups": frozenset({"staff"})}, Exemption.LISTED),
        ({"is_holder": True}, Exemption.HOLDER),
        ({"is_within_reach": False}, Exemption.OUT_OF_REACH),
    ],
)
def test_what_is_left_alone(changes: dict[str, object], reason: Exemption) -> None:
    facts = replace(BOB, **changes)  # type: ignore[arg-type]
    services = frozenset({"driverd"})
    assert exemption_of(facts, frozenset({"ann", "@staff"}), services) is reason
    assert bool(reason.label)


def test_a_program_may_not_call_itself_a_display_server() -> None:
    assert exemption_of(replace(BOB, program="Xorg"), frozenset()) is Exemption.NONE


@pytest.mark.parametrize(
    ("sighting", "now", "step"),
    [
        (SEEN, 100.0 + SETTLE_SECONDS - 1, StrayStep.NONE),
        (SEEN, 100.0 + SETTLE_SECONDS, StrayStep.TELL),
        (TOLD, 699.0, StrayStep.NONE),
        (TOLD, 700.0, StrayStep.ASK),
        (replace(TOLD, asked=700.0), 700.0 + KILL_SECONDS - 1, StrayStep.NONE),
        (replace(TOLD, asked=700.0), 700.0 + KILL_SECONDS, StrayStep.KILL),
    ],
)
def test_it_is_told_then_asked_then_killed(
    sighting: Sighting, now: float, step: StrayStep
) -> None:
    assert due_step(sighting, Exemption.NONE, TERMINATE, now) is step


def test_what_is_exempt_or_only_warned_of_is_told_and_never_ended() -> None:
    warn = replace(TERMINATE, action=StrayAction.WARN)
    for exemption, policy in ((Exemption.ROOT, TERMINATE), (Exemption.NONE, warn)):
        assert due_step(SEEN, exemption, policy, 1e6) is StrayStep.TELL
        assert due_step(TOLD, exemption, policy, 1e6) is StrayStep.NONE
        assert end_of(TOLD, exemption, policy) is None


def test_by_default_nothing_is_done() -> None:
    assert due_step(SEEN, Exemption.NONE, StrayPolicy(), 1e6) is StrayStep.NONE


def test_a_grace_of_nothing_still_lets_a_process_be_tied_to_its_lease() -> None:
    at_once = replace(TERMINATE, grace_seconds=0.0)
    assert end_of(SEEN, Exemption.NONE, at_once) == 100.0 + SETTLE_SECONDS


@given(
    seen=st.floats(0, 1e6),
    passed=st.floats(0, 1e6),
    grace=st.floats(0, 1e5),
    exemption=st.sampled_from(Exemption),
    action=st.sampled_from(StrayAction),
    is_told=st.booleans(),
)
def test_nobody_is_ended_before_the_grace_period_is_over_or_without_being_told(
    seen: float,
    passed: float,
    grace: float,
    exemption: Exemption,
    action: StrayAction,
    is_told: bool,
) -> None:
    policy = StrayPolicy(action=action, grace_seconds=grace)
    sighting = Sighting(seen=seen, is_told=is_told)
    step = due_step(sighting, exemption, policy, seen + passed)
    assert step is not StrayStep.KILL
    if step is StrayStep.ASK:
        assert action is StrayAction.TERMINATE
        assert exemption is Exemption.NONE
        assert is_told
        assert seen + passed >= seen + grace
