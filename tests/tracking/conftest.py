from __future__ import annotations

from pathlib import Path

import pytest

from tests.ledger.conftest import postgres_server

__all__ = ["postgres_server"]


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real MLflow store on SQLite; made once, since making its tables takes
    seconds.
    """
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger and a simulated GPU for this test alone, reached without a server."""
    from jupyter_aistack.client import client

    for name in ("AISTACK_SOCKET", "AISTACK_KERNEL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AISTACK_LEDGER", f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    monkeypatch.setattr(client, "_connected", None)
