"""The folder of a run lives as long as the process that made it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jupyter_aistack.compute.training.run_folder import (
    OWNER_FILE,
    has_owner,
    run_folder,
)

OWNER = """
import os, signal, sys
from jupyter_aistack.compute.training.run_folder import run_folder
with run_folder() as folder:
    if os.fork() == 0:
        signal.pause()
    print(folder, flush=True)
    signal.pause()
"""
"""Makes a folder, forks, and waits; its child outlives it."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_a_folder_is_private_and_ends_with_its_run(tmp_path: Path) -> None:
    with run_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert has_owner(folder / OWNER_FILE)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_stays_while_its_maker_is_stopped_and_goes_once_it_is_killed(
    tmp_path: Path,
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    try:
        owner.send_signal(signal.SIGSTOP)
        with run_folder():
            assert folder.exists()
        owner.kill()
        owner.wait()
        assert not has_owner(folder / OWNER_FILE), "a child does not keep it"
        with run_folder():
            assert not folder.exists()
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.stdout.close()


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    kept = [tmp_path / "aistack-run-of-another", tmp_path / "other"]
    for folder in kept:
        folder.mkdir()
    with run_folder() as folder, run_folder() as second:
        assert sorted(tmp_path.iterdir()) == sorted([*kept, folder, second])
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_an_owner_that_cannot_be_asked_for_is_there(tmp_path: Path) -> None:
    assert has_owner(tmp_path / "nowhere")
