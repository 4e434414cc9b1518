"""Limits of containers, read from files laid out as Linux lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_aistack.core.model.units import GIB, MIB
from jupyter_aistack.system import cgroup


def lay_out(folder: Path, membership: str, files: dict[str, str]) -> dict[str, Path]:
    root, member = folder / "fs", folder / "cgroup"
    member.write_text(membership)
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return {"root": root, "membership": member}


def test_the_tightest_limit_above_a_group_counts(tmp_path: Path) -> None:
    files = {
        "a/memory.max": f"{8 * GIB}\n",
        "a/b/memory.max": "max\n",
        "a/b/c/memory.max": f"{16 * GIB}\n",
        "a/cpu.max": "150000 100000\n",
        "a/b/c/cpu.max": "max 100000\n",
        "other/memory.max": "1\n",
    }
    where = lay_out(tmp_path, "0::/a/b/c\n", files)
    assert cgroup.memory_limit(**where) == 8 * GIB
    assert cgroup.cpu_limit(**where) == 1.5


def test_inside_a_container_the_root_speaks_for_it(tmp_path: Path) -> None:
    files = {"memory.max": f"{2 * GIB}\n", "cpu.max": "400000 100000\n"}
    where = lay_out(tmp_path, "0::/docker/0123\n", files)
    assert (cgroup.memory_limit(**where), cgroup.cpu_limit(**where)) == (2 * GIB, 4.0)


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    files = {
        "memory/user/memory.limit_in_bytes": f"{4 * GIB}\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/user/memory.usage_in_bytes": f"{GIB}\n",
        "memory/user/memory.stat": f"cache 9\ntotal_inactive_file {256 * MIB}\n",
        "cpu/user/cpu.cfs_quota_us": "50000\n",
        "cpu/user/cpu.cfs_period_us": "100000\n",
    }
    where = lay_out(tmp_path, "5:cpu,cpuacct:/user\n4:memory:/user\n0::/\n", files)
    assert cgroup.memory_limit(**where) == 4 * GIB
    assert cgroup.memory_used(**where) == 768 * MIB
    assert cgroup.cpu_limit(**where) == 0.5


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"memory.max": "max\n", "cpu.max": "max 100000\n"},
        {
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cpu/cpu.cfs_quota_us": "-1\n",
        },
    ],
)
def test_no_limit_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    where = lay_out(tmp_path, "3:memory:/\n2:cpu:/\n0::/\n", files)
    assert (cgroup.memory_limit(**where), cgroup.cpu_limit(**where)) == (None, None)


def test_a_system_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    where = {"root": tmp_path / "none", "membership": tmp_path / "none"}
    assert cgroup.memory_limit(**where) is None
    assert cgroup.memory_used(**where) is None
    assert cgroup.cpu_limit(**where) is None


def test_file_caches_that_would_give_way_are_not_in_use(tmp_path: Path) -> None:
    files = {
        "memory.current": f"{GIB}\n",
        "memory.stat": f"anon 1\ninactive_file {GIB // 2}\n",
    }
    assert cgroup.memory_used(**lay_out(tmp_path, "0::/\n", files)) == GIB // 2
