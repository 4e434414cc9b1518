"""What this process may do that only root may by default; see capabilities(7)."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

_STATUS = Path("/proc/self/status")


class Capability(IntEnum):
    """A right, by its number in ``linux/capability.h``."""

    DAC_OVERRIDE = 1  # write what belongs to others
    KILL = 5  # send signals to processes of others
    SETUID = 7  # act as another user
    SYS_PTRACE = 19  # look into processes of others
    SYS_ADMIN = 21  # control groups, namespaces, devices


def capabilities() -> frozenset[Capability]:
    """Those that this process has now; none where the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return frozenset(each for each in Capability if held & (1 << each))
    return frozenset()
