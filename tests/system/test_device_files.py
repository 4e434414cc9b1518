"""Device files and device control groups, laid out as Linux lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_aistack.system.device_files import DeviceFiles


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    folder = tmp_path / "dev"
    (folder / "dri").mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "dri/renderD128"):
        (folder / name).touch()
    return folder


def in_group(tmp_path: Path, dev: Path, *rules: str) -> DeviceFiles:
    """In the device control group ``job`` with these rules."""
    group = tmp_path / "cgroup" / "devices" / "job"
    group.mkdir(parents=True)
    (group / "devices.list").write_text("".join(f"{rule}\n" for rule in rules))
    membership = tmp_path / "membership"
    membership.write_text("5:devices:/job\n0::/\n")
    return DeviceFiles(dev, tmp_path / "cgroup", membership)


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (["a *:* rwm"], [True, True]),
        (["c 195:* rwm"], [True, True]),
        (["c 1:3 rwm", "c 195:1 rw", "c 195:255 rwm"], [False, True]),
        (["c 195:0 r", "b 195:1 rwm"], [False, False]),
        (["c 1:3 rwm"], [False, False]),
        ([], [True, True]),
    ],
)
def test_a_device_control_group_says_what_may_be_opened(
    tmp_path: Path, dev: Path, rules: list[str], allowed: list[bool]
) -> None:
    files = in_group(tmp_path, dev, *rules)
    assert [files.may_open(f"nvidia{n}", 195, n) for n in (0, 1)] == allowed


def test_of_a_file_that_is_not_there_nothing_is_known(
    tmp_path: Path, dev: Path
) -> None:
    files = in_group(tmp_path, dev, "c 1:3 rwm")
    assert files.may_open("nvidia7", 195, 7) is None
    assert files.has("nvidia[0-9]*")
    assert not files.has("dxg*")


def test_version_2_tells_nothing_and_permissions_count(
    tmp_path: Path, dev: Path
) -> None:
    membership = tmp_path / "membership"
    membership.write_text("0::/job\n")
    files = DeviceFiles(dev, tmp_path / "cgroup", membership)
    assert files.may_open("dri/renderD128", 226, 128) is True
