"""Who says what may be granted: found in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_aistack.system.launcher import allowed_cores, launcher
from tests.paths import ROOT

SHOW = """
import os
from jupyter_aistack.system.launcher import allowed_cores, launcher
asked = launcher()
print(asked.environment.get("SHOWN"), asked.pid == os.getpid(), len(allowed_cores()))
"""
BELOW = f"""
import os, subprocess, sys
leased = {{**os.environ, "AISTACK_LEASE": "l-1", "SHOWN": "slice"}}
bind = lambda: os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
subprocess.run([sys.executable, "-c", {SHOW!r}], env=leased, preexec_fn=bind)
"""


def run(code: str, **environment: str) -> list[str]:
    """What a process that is started so prints, word by word."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("AISTACK_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**known, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def cores() -> str:
    return str(len(os.sched_getaffinity(0)))


def test_a_process_that_was_given_nothing_of_ours_speaks_for_itself() -> None:
    assert run(SHOW, SHOWN="host") == ["host", "True", cores()]


@pytest.mark.parametrize("mark", ["AISTACK_LEASE", "AISTACK_KERNEL"])
def test_below_a_lease_or_a_kernel_its_launcher_speaks(mark: str) -> None:
    below = BELOW.replace("AISTACK_LEASE", mark)
    assert run(below, SHOWN="host") == ["host", "False", cores()]


def test_a_lease_that_a_process_took_itself_narrows_nothing() -> None:
    taken = (
        'import os\nos.environ |= {"AISTACK_LEASE": "l-1", "SHOWN": "slice"}\n'
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    )
    assert run(taken + SHOW, SHOWN="host") == ["host", "True", cores()]


def test_what_a_process_shows_itself_before_it_asks_counts() -> None:
    chosen = 'import os\nos.environ["SHOWN"] = "own"\n'
    assert run(chosen + SHOW, SHOWN="host")[0] == "own"


def test_where_no_launcher_can_be_seen_no_more_than_the_slice_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISTACK_LEASE", "l-1")
    monkeypatch.setenv("SHOWN", "slice")
    asked = launcher(tmp_path)
    assert (asked.pid, asked.environment["SHOWN"]) == (os.getpid(), "slice")
    assert set(allowed_cores(tmp_path)) == os.sched_getaffinity(0)
