"""What a broker remembers of strays beyond its own end, in one small file.

A broker that is started again must neither begin a grace period anew nor cut one short.
What was written in another run of the machine, or cannot be read, is forgotten: then a
grace period begins anew.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jupyter_aistack.core.enforcement.strays import Sighting
from jupyter_aistack.system.files import write_atomic
from jupyter_aistack.system.processes import boot_id

log = logging.getLogger("jupyter_aistack")

StrayKey = tuple[str, int, float]
"""A device, and a process by its number and its start."""
_PRIVATE = 0o700
_PRIVATE_FILE = 0o600


class StrayRecord:
    """The sightings that are written down.

    Args:
        path: the file; None keeps nothing beyond this process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def read(self) -> dict[StrayKey, Sighting]:
        """What this run of the machine has seen."""
        if self._path is None or not _is_own(self._path):
            return {}
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            if data["boot_id"] != boot_id():
                return {}
            return dict(_entry(row) for row in data["strays"])
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    def write(self, sightings: Mapping[StrayKey, Sighting]) -> None:
        """Replace what is written down. What cannot be written is known to this process
        alone.
        """
        if self._path is None:
            return
        rows = [{"key": key, **asdict(value)} for key, value in sightings.items()]
        content = json.dumps({"boot_id": boot_id(), "strays": rows})
        try:
            self._path.parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            write_atomic(self._path, content)
            self._path.chmod(_PRIVATE_FILE)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error.strerror)


def _is_own(path: Path) -> bool:
    """Whether nobody else could have written a file: it tells when processes end."""
    try:
        status = path.lstat()
    except OSError:
        return False
    is_closed = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and is_closed


def _entry(row: dict[str, Any]) -> tuple[StrayKey, Sighting]:
    device_id, pid, started = row.pop("key")
    return (str(device_id), int(pid), float(started)), Sighting(**row)
