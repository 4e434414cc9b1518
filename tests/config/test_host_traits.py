from __future__ import annotations

import pytest

from jupyter_aistack.config import AIStack
from jupyter_aistack.core.model.stray import StrayAction, StrayPolicy
from jupyter_aistack.exceptions import InvalidRequest


def test_by_default_strays_are_shown_and_nothing_else() -> None:
    assert AIStack().build_stray_policy() == StrayPolicy()


def test_what_is_done_about_strays_is_read() -> None:
    settings = AIStack(
        stray_action="terminate", stray_grace="2min", stray_exempt=["ann", "@staff"]
    )
    assert settings.build_stray_policy() == StrayPolicy(
        action=StrayAction.TERMINATE,
        grace_seconds=120.0,
        exempt=frozenset({"ann", "@staff"}),
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("stray_action", "kill", "'kill' is not one of nothing, warn, terminate"),
        ("stray_grace", "soon", "expected a duration"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    name: str, value: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        AIStack(**{name: value}).build_stray_policy()
    assert refused.value.facts["field"] == name
