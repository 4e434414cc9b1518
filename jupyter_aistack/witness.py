"""What would a process really get? A short-lived child looks, and its report is held against the promise."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .core.verification import judge

CHILD_SECONDS = 15.0
"""The child itself gives a driver up before that; the rest is for its start on a busy host."""

_PROGRAM = Path(__file__).with_name("seen.py")


def verify(
    expects: Mapping[str, object], *, interpreter: str, environment: Mapping[str, str]
) -> tuple[bool | None, str]:
    """Compare a promise with what a child of `interpreter` with `environment` sees.

    The child has the affinity of the calling thread. CUDA starts in the child alone.

    Returns:
        (True, "") when all is as promised, (False, sentence) when it is not, (None, sentence) when it cannot be known.
    """
    if not expects:
        return None, "there is nothing to verify"
    # Isolated: neither a module of the user's that is called json nor a slow site-packages may get in the way.
    program = [interpreter, "-I", "-S", str(_PROGRAM)]
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": CHILD_SECONDS}
    try:
        done = subprocess.run(program, env=dict(environment), check=True, **options)
        seen: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return None, f"could not be verified: {type(error).__name__}"
    return judge(expects, seen)
