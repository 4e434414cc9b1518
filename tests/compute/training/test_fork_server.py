from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests.fakes.waiting import wait_until


def test_nothing_outlives_a_killed_notebook(own_ledger: str) -> None:
    environment = {**os.environ, "AISTACK_PROVIDERS": "cpu"}
    owner = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("owner.py"))],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert owner.stdout is not None
    processes = [psutil.Process(pid) for pid in json.loads(owner.stdout.readline())]
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert len(set(processes)) == 6
    wait_until(lambda: not any(map(runs, processes)), otherwise=lambda: str(processes))


def runs(process: psutil.Process) -> bool:
    """A zombie that nobody has collected yet has ended."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
