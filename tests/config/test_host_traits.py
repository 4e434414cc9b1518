from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_aistack.config import AIStack, host_traits
from jupyter_aistack.core.model.stray import StrayAction, StrayPolicy
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.system.device_scopes import DeviceScopes


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


def test_access_by_device_files_is_refused_with_the_reason_where_it_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = AIStack(device_access="cgroup", ledger_url="memory:", providers="cpu")
    monkeypatch.setattr(
        host_traits, "DeviceScopes", lambda: DeviceScopes(runs=tmp_path / "none")
    )
    with pytest.raises(InvalidRequest, match="systemd does not run here") as refused:
        settings.build_broker()
    assert refused.value.facts["field"] == "device_access"


def test_by_default_the_environment_is_to_do() -> None:
    assert AIStack().build_device_scopes() is None
