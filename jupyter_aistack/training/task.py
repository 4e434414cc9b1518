"""What a Dask worker does for a rank: start it, watch it, end it. The worker itself never touches torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05


def run_rank(job: dict[str, Any]) -> dict[str, Any]:
    """Run one rank to its end, as a Dask task.

    Args:
        job: see `launch`; ``stop_file``, once it exists, holds the seconds the rank gets to end by itself.

    Returns:
        ``rank``; ``code``, the exit status, negative for a signal; ``was_stopped``, whether that was on our account.
    """
    job_file = Path(job["error_file"]).with_suffix(".job")
    job_file.write_text(json.dumps(job))
    command = [sys.executable, "-m", "jupyter_aistack.training.rank", str(job_file), str(os.getpid())]
    # The notebook's modules must be found as the worker finds them.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    environment["PYTHONUNBUFFERED"] = "1"
    with open(job["out_file"], "ab") as out, open(job["log_file"], "ab") as log:
        # A session of its own: Ctrl-C in a terminal goes to whole process groups, and stopping is for the notebook.
        process = subprocess.Popen(command, stdout=out, stderr=log, env=environment, start_new_session=True)
    try:
        was_stopped = _watch(process, Path(job["stop_file"]))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return {"rank": job["rank"], "code": process.returncode, "was_stopped": was_stopped}


def _watch(process: subprocess.Popen[bytes], stop_file: Path) -> bool:
    """Wait for the end, or bring it about; tells which."""
    deadline: float | None = None
    while process.poll() is None:
        if deadline is None and stop_file.exists():
            deadline = time.monotonic() + float(stop_file.read_text())
            process.send_signal(signal.SIGTERM)
        if deadline is not None and time.monotonic() >= deadline:
            process.kill()
        time.sleep(POLL_SECONDS)
    return deadline is not None
