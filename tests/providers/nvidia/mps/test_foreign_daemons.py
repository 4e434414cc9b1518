"""Daemons that are not ours."""

from __future__ import annotations

import pytest

from jupyter_aistack.providers.nvidia.mps.foreign_daemons import foreign_daemon
from tests.fakes.mps.host import Stand

pytestmark = pytest.mark.service


def test_another_daemon_is_seen_and_ours_is_not(stand: Stand) -> None:
    stand.hold(stand.manager())
    running = stand.running()
    assert running is not None
    assert foreign_daemon([running.pid]) == ""
    assert f"process {running.pid}" in foreign_daemon([])
