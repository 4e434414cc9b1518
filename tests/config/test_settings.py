from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_aistack.config import AIStack, load_settings
from jupyter_aistack.config import settings as settings_module
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.ledger import opening
from jupyter_aistack.ledger.opening import results_file


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


@pytest.fixture
def configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str, int], None]:
    """Writes a configuration: of this user, or one that it may not write."""
    folders = {"own": tmp_path / "own", "guarded": tmp_path / "guarded"}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(folders["own"]))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(folders["guarded"]))
    monkeypatch.setattr(settings_module, "is_root", lambda: False)
    # The test's user owns all its files: whoever else made them is played by their mode.
    owner = os.getuid()
    monkeypatch.setattr(opening, "rule_makers", _rule_makers_but(owner))
    monkeypatch.setattr(settings_module.os, "getuid", lambda: owner + 1)

    def write(folder: str, text: str, mode: int) -> None:
        file = folders[folder] / "jupyter_aistack_config.py"
        file.write_text(text)
        file.chmod(mode)

    return write


def _rule_makers_but(owner: int) -> Callable[[str], frozenset[int] | None]:
    real = opening.rule_makers

    def asked(url: str) -> frozenset[int] | None:
        return frozenset({0, owner}) if url.startswith("postgresql") else real(url)

    return asked


SHARED = "postgresql+psycopg://ann@127.0.0.1:1/aistack"


def test_nobody_gives_itself_a_role_on_a_shared_ledger(
    configured: Callable[[str, str, int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AISTACK_LEDGER", SHARED)
    roles = "c.AIStack.admins = ['{0}']\nc.AIStack.operators = ['{0}']\n"
    roles += "c.AIStack.managers = {{'default': ['{0}']}}\n"
    configured("own", roles.format("me"), 0o666)
    configured("guarded", roles.format("prof"), 0o644)
    settings = load_settings()
    settings.take_shared_rules()
    assert (settings.admins, settings.operators) == (["prof"], ["prof"])
    assert settings.managers == {"default": ["prof"]}
    told = capsys.readouterr().err
    for ignored in ("admins: me", "operators: me", "managers: me of default"):
        assert f"AIStack.{ignored} is left out: the ledger is shared" in told


def test_limits_of_a_shared_ledger_are_those_that_its_users_cannot_write(
    configured: Callable[[str, str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISTACK_LEDGER", SHARED)
    own = "c.AIStack.user_limits = {}\nc.AIStack.show_names = True\n"
    configured("own", own + "c.AIStack.providers = 'cpu'", 0o666)
    rules = "c.AIStack.user_limits = {'*': {'slices': 1}}\nc.AIStack.show_names = False"
    configured("guarded", rules, 0o644)
    settings = load_settings()
    settings.take_shared_rules()
    assert settings.user_limits == {"*": {"slices": 1}}
    assert settings.show_names is False
    assert settings.providers == "cpu", "what one's own devices are is one's own"


def test_on_a_ledger_of_ones_own_ones_own_settings_hold(
    configured: Callable[[str, str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISTACK_LEDGER", "memory:")
    configured("own", "c.AIStack.admins = ['me']", 0o666)
    settings = load_settings()
    settings.take_shared_rules()
    assert settings.admins == ["me"]
