"""``make`` on a machine that lacks what the tests drive."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LISTS_LOCK = Path("/var/lib/apt/lists/lock")
NEEDED = ("make", "bash", "sh", "id", "ls", "find", "sed", "env", "uname", "which")


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder of programs without a browser, a compiler or a database, and an
    ``apt-get`` that only notes what it is told.
    """
    if os.getuid() != 0 or not LISTS_LOCK.exists():
        pytest.skip("only root may install packages, and this needs Debian's apt")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in NEEDED:
        where = shutil.which(name)
        if where is not None:
            (programs / name).symlink_to(where)
    (programs / "python3.11").symlink_to(sys.executable)
    apt = programs / "apt-get"
    apt.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path / "asked"}\n')
    apt.chmod(0o755)
    return programs


@pytest.fixture
def busy_lists() -> Iterator[int]:
    """The lock of apt's package lists, held as another package manager holds it."""
    handle = os.open(LISTS_LOCK, os.O_RDWR)
    fcntl.lockf(handle, fcntl.LOCK_EX)
    yield handle
    os.close(handle)


def install(root: Path, programs: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["make", "-s", "-C", str(root), "system-packages", f"VENV={programs.parent}/v"],
        env={"PATH": str(programs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_busy_package_manager_is_waited_for(
    root: Path, bare_path: Path, busy_lists: int
) -> None:
    asked = bare_path.parent / "asked"
    done = install(root, bare_path)
    assert done.stderr is not None
    told = done.stderr.readline()
    assert told == "waiting for another package manager, up to 600 s\n"
    assert not asked.exists()
    fcntl.lockf(busy_lists, fcntl.LOCK_UN)
    rest = done.communicate(timeout=60)[1]
    assert done.returncode == 0, rest
    update, packages = asked.read_text().splitlines()
    assert update == "-qq -o DPkg::Lock::Timeout=600 update"
    assert packages.startswith("-qq -o DPkg::Lock::Timeout=600 install -y")
    assert {"chromium", "gcc", "postgresql"} & set(packages.split())


def test_what_is_there_is_not_installed(
    root: Path, bare_path: Path, tmp_path: Path
) -> None:
    for name in ("chromium", "gcc", "initdb"):
        (bare_path / name).symlink_to("/bin/true")
    assert install(root, bare_path).wait(timeout=60) == 0
    assert not (tmp_path / "asked").exists()
