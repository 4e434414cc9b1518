"""Daemons that are not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_aistack.providers.nvidia.mps.foreign_daemons import foreign_daemon
from tests.fakes.mps.host import Stand

pytestmark = pytest.mark.service


def test_another_daemon_is_seen_and_ours_is_not(stand: Stand, tmp_path: Path) -> None:
    stand.hold(stand.manager())
    running = stand.running()
    assert running is not None
    # Other tests have daemons at the same time.
    (tmp_path / str(running.pid)).symlink_to(f"/proc/{running.pid}")
    assert foreign_daemon([running.pid], tmp_path) == ""
    assert f"process {running.pid}" in foreign_daemon([], tmp_path)
