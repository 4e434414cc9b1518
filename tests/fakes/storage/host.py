"""Processes on a file system that lacks something: see ``fake_storage.c``."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.fakes.libraries import compiled
from tests.paths import ROOT

SOURCE = Path(__file__).with_name("fake_storage.c")
LIBRARY = "libfakestorage.so"


def environment_without(folder: Path, **errors: int) -> dict[str, str]:
    """Variables for a process in which calls on files below a folder fail.

    Args:
        errors: errno values of ``shared`` memory, ``lock`` and ``write``.
    """
    library = compiled(SOURCE, LIBRARY, "-ldl") / LIBRARY
    chosen = {f"FAKE_STORAGE_{name.upper()}": str(errors[name]) for name in errors}
    return {"LD_PRELOAD": str(library), "FAKE_STORAGE_FOLDER": str(folder), **chosen}


def write_ledger(
    url: str,
    *arguments: str,
    user: int | None = None,
    mounting: str = "",
    **environment: str,
) -> Any:
    """What ``tests.fakes.storage.writer`` prints in a process of its own.

    Args:
        user: whose process it is, in no other group than that of this number.
        mounting: a shell command that comes first, whose mounts that process alone
            sees.
    """
    command = [sys.executable, "-m", "tests.fakes.storage.writer", url, *arguments]
    if mounting:
        script = f"{mounting} && exec {shlex.join(command)}"
        command = ["unshare", "--mount", "sh", "-c", script]
    if user is not None:
        environment["FAKE_STORAGE_USER"] = str(user)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)
