from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.model.lease import (
    LIVE_STATES,
    TRANSITIONS,
    Lease,
    LeaseState,
    LeaseTransition,
    Outcome,
    advance,
)
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.exceptions import InvalidTransition
from jupyter_aistack.testing import holder

LEASE = Lease(
    id="l-1",
    token=1,
    request_id="r-1",
    spec=parse_spec("1/4"),
    holder=holder(),
    slices=(),
    granted_at=0.0,
    expires_at=60.0,
)


@pytest.mark.parametrize("state", LeaseState)
@pytest.mark.parametrize("step", LeaseTransition)
def test_a_step_is_in_the_table_or_raises_and_changes_nothing(
    state: LeaseState, step: LeaseTransition
) -> None:
    lease = replace(LEASE, state=state)
    if (state, step) in TRANSITIONS:
        assert advance(lease, step, 1.0).state is TRANSITIONS[state, step]
    else:
        with pytest.raises(InvalidTransition) as caught:
            advance(lease, step, 1.0)
        assert caught.value.facts == {
            "lease_id": "l-1",
            "state": state.value,
            "step": step.value,
        }
        assert lease.state is state


def test_nothing_leads_out_of_the_end() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] is LeaseState.ENDED]


@given(st.lists(st.sampled_from(LeaseTransition), max_size=12))
def test_a_lease_ends_once_and_says_how(steps: list[LeaseTransition]) -> None:
    lease = LEASE
    for now, step in enumerate(steps, 1):
        try:
            after = advance(lease, step, float(now))
        except InvalidTransition:
            continue
        assert lease.is_live, "an ended lease took a step"
        lease = after
    assert (
        (lease.outcome is not None)
        == (lease.ended_at is not None)
        == (lease.state not in LIVE_STATES)
    )


def test_finishing_a_release_is_the_only_way_to_have_been_released() -> None:
    released = advance(
        advance(LEASE, LeaseTransition.RELEASE, 1.0), LeaseTransition.FINISH, 2.0
    )
    assert (released.outcome, released.ended_at) == (Outcome.RELEASED, 2.0)
    assert advance(LEASE, LeaseTransition.REAP, 3.0).outcome is Outcome.ABANDONED


def test_a_lease_is_over_at_the_end_its_user_asked_for_and_at_no_other_time() -> None:
    assert not LEASE.is_expired(1e9)
    limited = replace(LEASE, ends_at=10.0)
    assert (limited.is_expired(9.9), limited.is_expired(10.0)) == (False, True)
    assert not replace(limited, state=LeaseState.ENDED).is_expired(1e9)


def test_a_renewal_holds_until_its_time() -> None:
    assert (LEASE.is_renewed(59.9), LEASE.is_renewed(60.0)) == (True, False)


def test_each_outcome_has_words_and_a_lapsed_lease_was_kept_by_nobody() -> None:
    assert Outcome.EXPIRED.label == "expired"
    assert Outcome.LAPSED.label == "lapsed: nobody kept it"
    assert Outcome.ABANDONED.label == "abandoned: its holder was gone"
