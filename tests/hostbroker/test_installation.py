"""The broker as a service: its files, and what systemd says to them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.cli import main
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.hostbroker.admin_file import AdminFile
from jupyter_aistack.hostbroker.service_units import EXAMPLE, service_files

PLACES = (
    "etc/jupyter/aistack_config.py",
    "etc/systemd/system/aistack-broker.service",
    "etc/systemd/system/aistack-broker.socket",
    "etc/tmpfiles.d/aistack.conf",
)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """The exit code of a command, and what it tells programs."""
    status = main(["broker", *words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def files_in(folder: Path) -> tuple[str, ...]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return tuple(sorted(str(path.relative_to(folder)) for path in files))


def test_each_file_is_shown_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["broker", "install", "--dry-run", "--root", str(folder)]) == 0
    shown = capsys.readouterr().out
    for place in PLACES:
        assert f"# {folder / place} (new)" in shown
    assert "ListenStream=/run/aistack/broker.sock" in shown
    assert files_in(folder) == ()


def test_what_was_installed_is_taken_away_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "etc" / "jupyter").mkdir(parents=True)
    (folder / "etc" / "jupyter" / "jupyter_server_config.py").write_text("x")
    before = files_in(folder)
    status, report = run(capsys, "install", "--root", str(folder))
    assert status == 0
    assert files_in(folder) == tuple(sorted({*before, *PLACES}))
    assert len(report["written"]) == len(PLACES)
    # A second time there is nothing to do.
    assert run(capsys, "install", "--root", str(folder)) == (
        0,
        {**report, "files": _seen(report, "same"), "written": []},
    )
    status, report = run(capsys, "uninstall", "--root", str(folder))
    assert (status, len(report["removed"])) == (0, len(PLACES))
    assert files_in(folder) == before


def _seen(report: Any, state: str) -> list[Any]:
    return [{**file, "state": state} for file in report["files"]]


def test_what_somebody_has_changed_is_neither_written_over_nor_taken_away(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = folder / PLACES[1]
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    status, report = run(capsys, "install", "--root", str(folder))
    assert status == 1
    assert str(unit) in report["problem"]
    assert files_in(folder) == (PLACES[1],)
    status, report = run(capsys, "uninstall", "--root", str(folder))
    assert (status, report["kept"]) == (1, [str(unit)])
    assert unit.exists()


def test_files_of_another_version_are_replaced_and_taken_away(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "install", "--root", str(folder), "--user", "daemon")
    status, report = run(capsys, "install", "--root", str(folder), "--user", "games")
    changed = {str(folder / place) for place in (PLACES[1], PLACES[3])}
    assert (status, set(report["written"])) == (0, changed)
    assert "User=games" in (folder / PLACES[1]).read_text()
    # As whom it was installed need not be known.
    assert run(capsys, "uninstall", "--root", str(folder))[0] == 0
    assert files_in(folder) == ()


def test_settings_that_were_written_stay(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "install", "--root", str(folder))
    settings = folder / PLACES[0]
    settings.write_text("c.AIStack.admins = ['x']\n")
    assert run(capsys, "install", "--root", str(folder))[0] == 0
    assert run(capsys, "uninstall", "--root", str(folder))[0] == 0
    assert files_in(folder) == (PLACES[0],)


def test_what_cannot_be_written_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "etc").mkdir()
    (folder / "etc" / "tmpfiles.d").write_text("")
    status, report = run(capsys, "install", "--root", str(folder))
    assert status == 1
    assert "tmpfiles.d" in report["problem"]
    assert files_in(folder) == ("etc/tmpfiles.d",)


def test_options_count_before_and_after_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "aistack_config.py"
    file.write_text("\nc.AIStack.admin = ['x']\n")
    chosen = ["--config", str(file), "--json"]
    for words in (["check", *chosen], [*chosen, "check"]):
        assert main(["broker", *words]) == 1
        report = json.loads(capsys.readouterr().out)
        assert report["file"] == str(file)
        assert "line 2: admin: there is no such setting" in report["problem"]


@pytest.mark.parametrize("command", ["check", "install", "uninstall"])
def test_what_a_command_has_no_use_for_is_refused(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [] if command == "check" else ["--root", str(folder)]
    words = ["--socket", "/run/elsewhere.sock", command, *place]
    assert main(["broker", *words]) == 2
    assert capsys.readouterr().err.startswith(
        "jupyter aistack: socket: --socket is for the broker itself"
    )
    assert files_in(folder) == ()


def test_a_python_that_users_cannot_run_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    python = home / "python3"
    python.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    words = ["broker", "install", "--dry-run", "--root", str(folder / "image")]
    assert main(words) == 0
    assert f"{python} is of no use to other users" in capsys.readouterr().out


def test_the_example_is_a_file_without_mistakes(folder: Path) -> None:
    file = folder / "aistack_config.py"
    used = [line.removeprefix("# ") for line in EXAMPLE.splitlines()]
    first = used.index('c.AIStack.admins = ["alice", "@gpu-admins"]')
    settings = [line for line in used[first:] if line[:1] in ("c", " ", "}")]
    for text in (EXAMPLE, "\n".join(settings)):
        file.write_text(text)
        AdminFile(file).load()
    assert AdminFile(file).load().queues.keys() == {"default", "class"}


def test_a_user_that_is_no_login_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no login"):
        service_files(sys.executable, "x\nExecStartPre=/bin/sh")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
@pytest.mark.parametrize("user", ["root", "daemon"])
def test_systemd_understands_the_units(folder: Path, user: str) -> None:
    units = [
        file
        for file in service_files("/usr/bin/env", user)
        if "systemd" in str(file.path)
    ]
    for file in units:
        (folder / file.path.name).write_text(file.marked)
    paths = [str(folder / file.path.name) for file in units]
    checked = subprocess.run(
        ["systemd-analyze", "verify", *paths], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stderr) == (0, "")
