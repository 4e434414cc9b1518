"""What a container allows its processes: memory and CPU time, from either version of
Linux's control groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
_MEMORY_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")


@dataclass(frozen=True, kw_only=True)
class MemoryGroup:
    """A control group that has a limit of memory.

    Attributes:
        limit: bytes the processes in it, and in the groups below it, may use.
        used: bytes they use, without file caches that would give way; None where that
            cannot be read.
    """

    limit: int
    used: int | None


def memory_groups(
    root: Path = ROOT, membership: Path = MEMBERSHIP
) -> tuple[MemoryGroup, ...]:
    """The groups with a limit that this process is in, innermost first."""
    limits = {
        folder: _memory_limit_of(folder)
        for folder in _folders("memory", root, membership)
    }
    return tuple(
        MemoryGroup(limit=limit, used=_memory_used_in(folder))
        for folder, limit in limits.items()
        if limit is not None
    )


def memory_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes this process and its neighbours in the group may use; None without a
    limit.
    """
    groups = memory_groups(root, membership)
    return min((group.limit for group in groups), default=None)


def memory_used(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes used in the group whose limit is the tightest, and without any limit in
    the innermost group; without file caches that would give way. None where that
    cannot be read.
    """
    groups = memory_groups(root, membership)
    if groups:
        return min(groups, key=lambda group: group.limit).used
    folders = _folders("memory", root, membership)
    known = (_memory_used_in(folder) for folder in folders)
    return next((used for used in known if used is not None), None)


def memory_left(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes this process can still use before the first of its groups is at its limit;
    None without a limit.

    That need not be the group with the tightest limit: neighbours may have filled a
    wider one above it.
    """
    groups = memory_groups(root, membership)
    left = (group.limit - (group.used or 0) for group in groups)
    return min((max(0, each) for each in left), default=None)


def cpu_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """CPUs' worth of time this process's group may use; None without a limit."""
    quotas = [_quota(folder) for folder in _folders("cpu", root, membership)]
    return min((quota for quota in quotas if quota is not None), default=None)


def may_use_device(
    major: int, minor: int, root: Path = ROOT, membership: Path = MEMBERSHIP
) -> bool:
    """Whether the device control group of version 1 lets this process read and write a
    character device; True where it has no list of them.
    """
    for folder in _folders("devices", root, membership):
        rules = _text(folder / "devices.list").splitlines()
        if rules:
            return any(_allows(rule, major, minor) for rule in rules)
    return True


def _allows(rule: str, major: int, minor: int) -> bool:
    """Whether a line such as ``c 195:0 rwm`` is about a device."""
    kind, numbers, access = (*rule.split(), "", "", "")[:3]
    if kind == "a":
        return True
    own_major, _, own_minor = numbers.partition(":")
    is_it = own_major in ("*", str(major)) and own_minor in ("*", str(minor))
    return kind == "c" and is_it and {"r", "w"} <= set(access)


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


def _memory_limit_of(folder: Path) -> int | None:
    """A group's limit. From ``memory.high`` on version 2 slows processes down until
    they stand, and version 1 tells of the groups above that a container cannot see.
    """
    limits = [_integer(folder / name) for name in _MEMORY_LIMITS]
    above = _fields(folder / "memory.stat").get("hierarchical_memory_limit", "")
    limits.append(_as_integer(above))
    return min((limit for limit in limits if limit is not None), default=None)


def _memory_used_in(folder: Path) -> int | None:
    for name in ("memory.current", "memory.usage_in_bytes"):
        used = _integer(folder / name)
        if used is not None:
            return max(0, used - _inactive_file(folder / "memory.stat"))
    return None


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
    fields = _fields(file)
    inactive = fields.get("total_inactive_file") or fields.get("inactive_file")
    return int(inactive or 0)


def _fields(file: Path) -> dict[str, str]:
    """A file of names and figures, a pair in each line."""
    lines = _text(file).splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


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
