"""The memory that this process may use, with control groups laid out as Linux does."""

from __future__ import annotations

import psutil
import pytest

from jupyter_aistack.core.model.units import GIB, MIB
from jupyter_aistack.system import cgroup, memory
from jupyter_aistack.system.cgroup import MemoryGroup


def in_groups(monkeypatch: pytest.MonkeyPatch, *groups: MemoryGroup) -> None:
    """This process is in these control groups, innermost first."""
    monkeypatch.setattr(cgroup, "memory_groups", lambda *_: groups)


def test_the_tightest_group_is_the_total_and_the_fullest_what_is_available(
    monkeypatch,
) -> None:
    in_groups(
        monkeypatch,
        MemoryGroup(limit=64 * MIB, used=MIB),
        MemoryGroup(limit=96 * MIB, used=90 * MIB),
    )
    assert memory.total_bytes() == 64 * MIB
    assert memory.available_bytes() == 6 * MIB


def test_without_a_limit_the_host_is_what_there_is(monkeypatch) -> None:
    in_groups(monkeypatch)
    assert memory.total_bytes() == psutil.virtual_memory().total
    assert 0 < memory.available_bytes() <= memory.total_bytes()


def test_a_limit_above_the_hosts_memory_gives_no_more(monkeypatch) -> None:
    in_groups(monkeypatch, MemoryGroup(limit=1 << 50, used=GIB))
    assert memory.total_bytes() == psutil.virtual_memory().total
    assert memory.available_bytes() <= memory.total_bytes()


def test_memory_that_a_host_has_yet_to_get_is_available(monkeypatch) -> None:
    in_groups(monkeypatch)
    total = psutil.virtual_memory().total
    assert memory.available_bytes(2 * total) > total
    assert memory.available_bytes(total // 2) > 0, "less than it has changes nothing"
    in_groups(monkeypatch, MemoryGroup(limit=64 * MIB, used=MIB))
    assert memory.available_bytes(2 * total) == 63 * MIB
