from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_aistack.config import AIStack, load_settings, results_file
from jupyter_aistack.exceptions import InvalidRequest


def test_the_environment_goes_before_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:2xA100-40GB")
    broker = AIStack(providers="cpu").build_broker()
    assert [device.simulated for device in broker.inventory().devices] == [True, True]
    broker.close()


def test_settings_are_read_from_the_same_files_as_a_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jupyter_server_config.py").write_text(
        "c.AIStack.providers = 'simulated:1xL4-24GB'\n"
    )
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    assert load_settings().providers == "simulated:1xL4-24GB"


@pytest.mark.parametrize("name", ["what?", "50%41", "a#b c"])
def test_the_default_ledger_is_in_jupyters_folder_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("AISTACK_LEDGER", raising=False)
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xL4-24GB")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / name))
    settings = AIStack()
    broker = settings.build_broker()
    assert list(broker.leases()) == []
    broker.close()
    folder = tmp_path / name / "aistack"
    assert (folder / "ledger.sqlite").stat().st_size > 0
    assert results_file(settings.chosen_ledger_url, tmp_path).parent == folder


def test_a_setting_of_the_wrong_kind_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jupyter_server_config.py").write_text("c.AIStack.user_limits = 3\n")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    with pytest.raises(InvalidRequest, match=r"^user_limits: .* expected a dict"):
        load_settings()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"lease_ttl_seconds": 0.0}, "lease_ttl_seconds"),
        ({"providers": "quantum"}, "providers"),
        ({"carbon_g_per_kwh": -1.0}, "carbon_g_per_kwh"),
        ({"price_per_kwh": float("nan")}, "price_per_kwh"),
        ({"price_per_gpu_hour": float("inf")}, "price_per_gpu_hour"),
        ({"enforcement": "strict"}, "enforcement"),
        ({"queues": {"a": {"weight": 0}}}, "queues"),
        ({"not_enforced_action": "shout"}, "not_enforced_action"),
        ({"memory_action": "kill"}, "memory_action"),
    ],
)
def test_a_setting_that_makes_no_sense_names_its_field(
    settings: dict[str, object], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AISTACK_ENFORCEMENT")
    with pytest.raises(InvalidRequest) as caught:
        AIStack(**settings).build_broker()
    assert caught.value.facts["field"] == field
