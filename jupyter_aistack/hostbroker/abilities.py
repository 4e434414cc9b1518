"""What a host broker that is not root cannot do: said when it starts, line by line."""

from __future__ import annotations

import os
from collections.abc import Collection

from jupyter_aistack.system.capabilities import Capability, capabilities
from jupyter_aistack.system.process_users import uid_of

FIRST_PROCESS = 1

LACKS: tuple[tuple[Capability, str], ...] = (
    (
        Capability.SYS_PTRACE,
        "suspend kernels of other users, or see what their processes were started with",
    ),
    (
        Capability.KILL,
        "end processes of other users that hold more memory than their lease, or that "
        "use a GPU without one",
    ),
    (
        Capability.SYS_ADMIN,
        "put processes into memory control groups, or close devices to them, or create "
        "MIG instances",
    ),
    (
        Capability.DAC_OVERRIDE,
        "have several users compute on a GPU at once by what holds them to their size: "
        "shares of different users are held by frameworks alone",
    ),
)
"""What each right is needed for."""
HIDDEN = (
    "see processes of other users: /proc is mounted with hidepid. A holder that cannot "
    "be seen is taken to live, and Jupyter servers cannot speak for their kernels; mount "
    "/proc with gid= of the broker's group"
)


def missing_abilities(
    held: Collection[Capability] | None = None, *, hides_processes: bool | None = None
) -> tuple[str, ...]:
    """What this process cannot do as a host broker; each reads on after "it cannot".

    Args:
        held: its rights; None asks the system.
        hides_processes: whether processes of others are hidden from it; None looks.
    """
    rights = capabilities() if held is None else held
    lacks = [text for right, text in LACKS if right not in rights]
    is_blind = _hides_processes() if hides_processes is None else hides_processes
    return (*lacks, HIDDEN) if is_blind else tuple(lacks)


def _hides_processes() -> bool:
    return os.getuid() != 0 and uid_of(FIRST_PROCESS) is None
