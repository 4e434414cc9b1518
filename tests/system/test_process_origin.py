from __future__ import annotations

import os
import sys
from pathlib import Path

from jupyter_aistack.system.process_origin import (
    installed_program_of,
    kernel_named_by,
    leases_named_by,
)
from tests.fakes.user_processes import Processes
from tests.fakes.user_processes import processes as processes

GONE = 2**22
"""A number that no process has."""


def test_what_a_process_was_started_as_is_read(processes: Processes) -> None:
    variables = {"AISTACK_KERNEL": "k-1", "AISTACK_LEASE": "l-1,l-2"}
    pid = processes.start(os.getuid(), **variables).pid
    assert kernel_named_by(pid) == "k-1"
    assert leases_named_by(pid) == {"l-1", "l-2"}


def test_what_cannot_be_seen_says_nothing() -> None:
    assert kernel_named_by(GONE) == ""
    assert leases_named_by(GONE) == frozenset()
    assert installed_program_of(GONE) == ""


def test_only_a_file_that_nobody_but_root_may_change_has_a_name(
    tmp_path: Path, processes: Processes
) -> None:
    own = tmp_path / "Xorg"
    own.write_bytes(Path("/bin/sleep").read_bytes())
    own.chmod(0o777)
    process = processes.start(os.getuid(), (str(own), "600"))
    assert installed_program_of(process.pid) == ""
    status = os.stat("/proc/self/exe")
    is_installed = status.st_uid == 0 and not status.st_mode & 0o022
    name = Path(sys.executable).resolve().name
    assert installed_program_of(os.getpid()) == (name if is_installed else "")
