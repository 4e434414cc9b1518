from __future__ import annotations

import json
from pathlib import Path

import pytest

from jupyter_aistack import client as clients
from jupyter_aistack.cli import _enforcement, main
from jupyter_aistack.core.device import Enforcement


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:2xH100-80GB")
    monkeypatch.setattr(clients, "_connected", None)


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    report: dict[str, object] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return report


def test_status_shows_devices_and_who_holds_what(capsys: pytest.CaptureFixture[str]) -> None:
    with clients.request("1/4", attach=False, label="paper.ipynb"):
        assert main(["status"]) == 0
        text = capsys.readouterr().out
        assert main(["status", "--json"]) == 0
    report = last_json(capsys)
    assert "simulated" in text
    assert "paper.ipynb" in text
    assert "3/4 free" in text
    assert [lease["spec"] for lease in report["leases"]] == ["1/4"]  # type: ignore[index, attr-defined]


def test_doctor_says_what_would_enforce_a_slice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "nothing: the device is simulated" in capsys.readouterr().out


def test_doctor_calls_a_compute_instance_advisory_as_its_lease_will() -> None:
    device = {"simulated": False, "kind": "gpu", "mig_enabled": True}
    told = _enforcement({**device, "mig": [{"profile": "1c.2g.35gb"}, {"profile": "2g.35gb"}]})
    assert told == {"1c.2g.35gb": Enforcement.L0.label, "2g.35gb": Enforcement.L4.label}


@pytest.mark.parametrize("verb", ["queue", "usage", "status", "doctor"])
def test_every_view_has_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--json"]) == 0
    assert isinstance(last_json(capsys), dict)


def test_request_runs_a_command_on_a_slice_and_gives_it_back(capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["request", "1/4", "--", "sh", "-c", 'test -n "$AISTACK_LEASE" && exit 7'])
    assert code == 7
    assert clients.connect().leases() == []
    assert clients.connect().leases(ended=True)[0]["outcome"] == "released"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["request", "banana", "--", "true"], "spec: 'banana' is not a slice"),
        (["request", "9", "--", "true"], "this host has 2 GPUs"),
        (["request", "1/4", "--for", "never", "--", "true"], "duration: 'never'"),
        (["request", "1/4", "--queue", "nowhere", "--", "true"], "queue: there is no queue 'nowhere'"),
        (["request", "1/4", "--", "no-such-program"], "command: no-such-program cannot be run"),
        (["release", "l-nope"], "l-nope"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jupyter aistack:")]
    assert len(lines) == 1
    assert words in lines[0]
    assert clients.connect().leases() == []


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AISTACK_SOCKET", "{tmp}/dead.sock", "no Jupyter server answers"),
        ("AISTACK_LEDGER", "sqlite:///{tmp}/corrupt.sqlite", "corrupt.sqlite"),
        ("AISTACK_LEDGER", "sqlite:///{tmp}/corrupt.sqlite/below/ledger.sqlite", "ledger_url"),
        ("AISTACK_LEDGER", "nonsense", "ledger_url"),
        ("AISTACK_PROVIDERS", "quantum", "providers"),
        ("AISTACK_PROVIDERS", "simulated:8xWonder", "providers"),
    ],
)
def test_a_broken_setting_is_one_line_and_exit_code_2(
    variable: str,
    value: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "corrupt.sqlite").write_bytes(b"this is no database" * 100)
    monkeypatch.setenv(variable, value.format(tmp=tmp_path))
    assert main(["status"]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert words in error
    assert (tmp_path / "corrupt.sqlite").read_bytes().startswith(b"this is no database")
