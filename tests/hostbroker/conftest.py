"""A host broker of its own, in a folder whose path is short and open to other users."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.host_broker import LiveBroker, live_broker
from tests.fakes.hub_api import Answering, hub_api

needs_root = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become several users"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter: those of tests are closed to them."""
    path = Path(tempfile.mkdtemp(prefix="aistack-broker-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def host(folder: Path) -> Iterator[LiveBroker]:
    """A host broker that answers."""
    with live_broker(folder) as broker:
        yield broker


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Starts servers in place of a hub's API."""
    with ExitStack() as servers:
        yield lambda answer: servers.enter_context(hub_api(answer))
