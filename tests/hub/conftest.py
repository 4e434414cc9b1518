"""Where a hub's files may lie, and why there may be none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import other_users
from tests.fakes.jupyterhub import proxy_program


@pytest.fixture(scope="session", autouse=True)
def needs_proxy() -> None:
    """Skip where the proxy of JupyterHub is not installed."""
    if not proxy_program():
        pytest.skip("configurable-http-proxy is not installed; `make test` does that")


@pytest.fixture(scope="session")
def needs_users() -> None:
    """Skip where no process of another Unix user can be started."""
    why_not = other_users.why_not()
    if why_not:
        pytest.skip(why_not)


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter."""
    with other_users.open_folder() as path:
        yield path
