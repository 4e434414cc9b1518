"""Which device files this process may open: by their permissions, and by the device
control groups it is in.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import cgroup

DEV = Path("/dev")


class DeviceFiles:
    """The device files of this host, as this process may use them.

    Args:
        dev: where they are.
        root: where control groups are mounted.
        membership: names the groups of this process.
    """

    def __init__(
        self,
        dev: Path = DEV,
        root: Path = cgroup.ROOT,
        membership: Path = cgroup.MEMBERSHIP,
    ) -> None:
        self._dev = dev
        self._root = root
        self._membership = membership

    def has(self, pattern: str) -> bool:
        """Whether there is any device file of such a name, as the shell matches it."""
        return any(True for _ in self._dev.glob(pattern))

    def may_open(self, name: str, major: int, minor: int) -> bool | None:
        """Whether a device file may be read and written; None where there is no such
        file, so that nothing is known of it.

        Version 2 of control groups does not tell what it allows; there the driver
        refuses the device.

        Args:
            name: below ``/dev``.
            major, minor: the numbers of the device.
        """
        file = self._dev / name
        if not file.exists():
            return None
        is_in_group = cgroup.may_use_device(major, minor, self._root, self._membership)
        return is_in_group and os.access(file, os.R_OK | os.W_OK)
