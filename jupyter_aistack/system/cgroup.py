"""What a container allows its processes: memory and CPU time, from either version of
Linux's control groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def memory_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes this process and its neighbours in the group may use; None without a
    limit.
    """
    limits: list[int | None] = []
    for folder in _folders("memory", root, membership):
        limits.append(_integer(folder / "memory.max"))
        limits.append(_integer(folder / "memory.limit_in_bytes"))
    return min((limit for limit in limits if limit is not None), default=None)


def memory_used(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes the group uses, without file caches that would give way; None where that
    cannot be read.
    """
    for folder in _folders("memory", root, membership):
        for name in ("memory.current", "memory.usage_in_bytes"):
            used = _integer(folder / name)
            if used is not None:
                return max(0, used - _inactive_file(folder / "memory.stat"))
    return None


def cpu_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """CPUs' worth of time this process's group may use; None without a limit."""
    quotas = [_quota(folder) for folder in _folders("cpu", root, membership)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _folders(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """The group's folder and those above it, innermost first. In a container, the
    outermost may be the only folder.
    """
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Version 1 has a tree for each controller, version 2 one for all.
        top = root / controller if controllers else root
        inner = top / path.strip("/")
        for folder in (inner, *inner.parents):
            if folder == top or top in folder.parents:
                yield folder


def _quota(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not quota:
        quota = _text(folder / "cpu.cfs_quota_us")
        period = _text(folder / "cpu.cfs_period_us")
    granted = _as_integer(quota)
    each = _as_integer(period)
    if granted is None or granted <= 0:
        return None
    return granted / each if each else None


def _inactive_file(file: Path) -> int:
    lines = _text(file).splitlines()
    fields = dict(line.split(" ", 1) for line in lines if " " in line)
    inactive = fields.get("total_inactive_file") or fields.get("inactive_file")
    return int(inactive or 0)


def _integer(file: Path) -> int | None:
    return _as_integer(_text(file))


def _as_integer(text: str) -> int | None:
    """The number, or None for "max", for nothing, and for a number that means "no
    limit".
    """
    try:
        number = int(text)
    except ValueError:
        return None
    return number if number < 1 << 60 else None


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
