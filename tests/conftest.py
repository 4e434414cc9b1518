"""What every test gets: a Jupyter of its own, a ledger of its own, and nothing of the machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ("pytest_jupyter.jupyter_server", "tests.fake_nvml.plugin")


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger in the test's own folder, whatever the environment says."""
    for name in ("AISTACK_SOCKET", "AISTACK_PROVIDERS", "AISTACK_LEASE", "AISTACK_KERNEL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    monkeypatch.setenv("AISTACK_LEDGER", url)
    return url
