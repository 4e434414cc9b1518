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


def test_what_is_left_is_the_least_over_all_groups(tmp_path: Path) -> None:
    """A wide group that its neighbours have filled leaves less than the tight group in
    it.
    """
    files = {
        "memory.max": "max\n",
        "memory.current": f"{60 * GIB}\n",
        "a/memory.max": f"{16 * GIB}\n",
        "a/memory.current": f"{15 * GIB}\n",
        "a/b/memory.max": f"{8 * GIB}\n",
        "a/b/memory.current": f"{2 * GIB}\n",
        "a/b/c/memory.max": "max\n",
        "a/b/c/memory.current": f"{GIB}\n",
    }
    where = lay_out(tmp_path, "0::/a/b/c\n", files)
    assert cgroup.memory_left(**where) == GIB
    # Limit and use are of one group.
    assert cgroup.memory_limit(**where) == 8 * GIB
    assert cgroup.memory_used(**where) == 2 * GIB


def test_a_group_whose_use_cannot_be_read_leaves_its_limit_at_most(
    tmp_path: Path,
) -> None:
    files = {"a/memory.max": f"{8 * GIB}\n"}
    where = lay_out(tmp_path, "0::/a\n", files)
    assert (cgroup.memory_left(**where), cgroup.memory_used(**where)) == (8 * GIB, None)


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    files = {"memory.max": f"{GIB}\n", "memory.current": f"{2 * GIB}\n"}
    assert cgroup.memory_left(**lay_out(tmp_path, "0::/\n", files)) == 0


def test_the_limit_that_slows_processes_down_counts(tmp_path: Path) -> None:
    files = {"a/memory.max": f"{8 * GIB}\n", "a/memory.high": f"{6 * GIB}\n"}
    assert cgroup.memory_limit(**lay_out(tmp_path, "0::/a\n", files)) == 6 * GIB


def test_version_1_tells_of_limits_above_a_container(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": f"{GIB}\n",
        "memory/memory.stat": f"hierarchical_memory_limit {4 * GIB}\n",
    }
    where = lay_out(tmp_path, "4:memory:/docker/0123\n", files)
    assert (cgroup.memory_limit(**where), cgroup.memory_left(**where)) == (
        4 * GIB,
        3 * GIB,
    )


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
    assert cgroup.memory_left(**where) is None


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
