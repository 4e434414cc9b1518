from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.hostbroker import admin_file
from jupyter_aistack.hostbroker.admin_file import AdminFile, line_of_setting


def load(folder: Path, text: str) -> admin_file.BrokerSettings:
    file = folder / "aistack_config.py"
    file.write_text(text)
    return AdminFile(file).load()


def test_settings_are_written_as_in_jupyters_files(folder: Path) -> None:
    settings = load(folder, "limit = 2\nc.AIStack.queues = {'a': {'limit': limit}}\n")
    assert settings.queues == {"a": {"limit": 2}}
    assert load(folder, "get_config().AIStack.admins = ['x']").admins == ["x"]
    assert load(folder, "c.AIStack.admins.append('y')").admins == ["y"]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("\nc.AIStack.queues = {\n", 2, "not Python"),
        ("x = 1\ny = 1 / 0\n", 2, "ZeroDivisionError"),
        ("\nexit()\n", 2, "SystemExit"),
        ("def f():\n    return z\nf()\n", 2, "NameError"),
        ("\n\nc.AIStack.quues = {}\n", 3, "quues: there is no such setting"),
        ("c.ServerApp.port = 1\n", None, "ServerApp: the host broker reads c.AIStack"),
        ("\nc.AIStack.user_limits = 3\n", 2, "user_limits: .*expected a dict"),
        ("\nc.AIStack.age = 'soon'\n", 2, "age: expected a duration"),
        ("\nc.AIStack.providers = 'moon'\n", 2, "moon"),
        ("\nc.AIStack.price_per_kwh = -1.0\n", 2, "price_per_kwh"),
        ("\nc.AIStack.cycle_seconds = 0.0\n", 2, "cycle_seconds: .*above 0"),
        (
            "c.AIStack.queues = {\n  'a': {},\n  'b': {\n    'weight': 0,\n  },\n}\n",
            4,
            "queues: 'b': weight: expected a number above 0",
        ),
        ("c.AIStack.queues = {\n  'a': {'wait': 1},\n}\n", 2, "there is no such field"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(
    folder: Path, text: str, line: int | None, why: str
) -> None:
    file = folder / "aistack_config.py"
    where = str(file) if line is None else f"{file}, line {line}"
    with pytest.raises(InvalidRequest, match=f"^{where}: .*{why}") as caught:
        load(folder, text)
    assert caught.value.facts.get("line") == line


def test_the_last_of_two_lines_counts() -> None:
    source = "c.AIStack.age = 1\nc.AIStack.age = 2\n"
    assert line_of_setting(source, "age") == 2
    assert line_of_setting(source, "queues") is None


def test_a_file_that_others_may_change_is_not_believed(folder: Path) -> None:
    file = folder / "aistack_config.py"
    file.write_text("")
    file.chmod(0o666)
    with pytest.raises(InvalidRequest, match="others than root"):
        AdminFile(file).load()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_believed(folder: Path) -> None:
    file = folder / "aistack_config.py"
    file.write_text("")
    os.chown(file, 23001, 23001)
    with pytest.raises(InvalidRequest, match="others than root"):
        AdminFile(file).load()


def test_what_cannot_be_read_is_said(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is no such file"):
        AdminFile(folder / "none.py").load()
    with pytest.raises(InvalidRequest, match=r"Is a directory"):
        AdminFile(folder).load()
    (folder / "latin.py").write_bytes(b"x = '\xe4'\n")
    with pytest.raises(InvalidRequest, match="UTF-8"):
        AdminFile(folder / "latin.py").load()


def test_the_usual_file_may_be_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_file, "DEFAULT_FILE", folder / "none.py")
    file = AdminFile()
    assert file.load().queues == {}
    assert file.mark() is None
