"""Drivers that checkpoint well enough, and known bugs: what is known, as data, each
with where it was reported.
"""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DriverDefect:
    """Drivers on which a kernel or a host was lost.

    Attributes:
        first, last: the versions it was seen on, and those between; both count.
        says: what happens.
        source: where it was reported.
    """

    first: Version
    last: Version
    says: str
    source: str


FLOOR: Version = (575, 57, 8)
FLOOR_SOURCE = (
    "NVIDIA/cuda-checkpoint#34, #24: trivial programs fail before it, "
    "and it is used in production from there on"
)
AARCH64_FLOOR: Version = (595,)
AARCH64_SOURCE = "NVIDIA/cuda-checkpoint#51: not supported before"
BUGS = (
    DriverDefect(
        first=(595, 71, 5),
        last=(595, 71, 5),
        says="killing a process that was restored hangs the host",
        source="NVIDIA/cuda-checkpoint#53",
    ),
    DriverDefect(
        first=(610, 57, 4),
        last=(610, 57, 4),
        says="locking a process of many threads may crash it",
        source="NVIDIA/cuda-checkpoint#58",
    ),
)


def why_not(driver: str, machine: str = "x86_64") -> str:
    """Why processes are not suspended on this driver (``"580.126.09"``); empty when
    nothing is known against it.
    """
    try:
        version = tuple(int(part) for part in driver.split("."))
    except ValueError:
        return f"the driver's version is not known: {driver!r}"
    floor, source = (
        (AARCH64_FLOOR, AARCH64_SOURCE)
        if machine == "aarch64"
        else (FLOOR, FLOOR_SOURCE)
    )
    if version < floor:
        return f"driver {driver} is older than {'.'.join(map(str, floor))} ({source})"
    known = (bug for bug in BUGS if bug.first <= version <= bug.last)
    return next((f"driver {driver}: {bug.says} ({bug.source})" for bug in known), "")
