"""A shell with the magics in it, and a client of its own behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from jupyter_aistack.client import client
from jupyter_aistack.notebook.magics.extension import AIStackMagics
from tests.fakes.shells import new_shell


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[client.Client]:
    """A client on a ledger of its own with one simulated GPU; no server."""
    for name in (
        "AISTACK_SOCKET",
        "AISTACK_KERNEL",
        "AISTACK_REQUEST",
        "AISTACK_LEASE",
        "JPY_SESSION_NAME",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("AISTACK_LEDGER", f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    monkeypatch.setattr(client, "_connected", None)
    connected = client.connect()
    yield connected
    held = client.attached()
    if held is not None:
        held.release()
    connected.close()


@pytest.fixture
def shell(broker: client.Client) -> Iterator[InteractiveShell]:
    """A real shell with the magics in it, which speak to the client above."""
    shell = new_shell()
    shell.colors = "nocolor"
    magics = AIStackMagics(shell, lambda: broker)
    magics.register()
    yield shell
    magics.unregister()


@pytest.fixture
def magics(shell: InteractiveShell) -> AIStackMagics:
    registered = shell.magics_manager.registry["AIStackMagics"]
    assert isinstance(registered, AIStackMagics)
    return registered
